"""JPEG files without what phones, cameras and programs put around the picture."""

from __future__ import annotations

import re
import struct

from mvsdk.image._colours import find_space
from mvsdk.image._essence import (
    DamageError,
    Essence,
    Refusal,
    find_orientation,
)

MAX_SCANS = 100
"""Passes over the picture, of which encoders make 1 to about 20. A scan may have next to no bytes,
and takes a decoder its time all the same."""
MAX_SCANNED_PIXELS = 1 << 31
"""Pixels of all scans together: 32 scans of the largest picture."""
MAX_SEGMENTS = 1 << 16

_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not an escape, a fill byte or a restart
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that no length follows."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE = b"ICC_PROFILE\0\1\1"
"""Of a profile in one piece; those of several are larger than any that is recognised."""


def read_jpeg(data: bytes) -> Essence:
    """Keep the segments of a JPEG file that decoders need, up to its end.

    The picture of a phone is followed by others (MPF), which end with it.

    Raises:
        DamageError: If it makes no sense.
        Refusal: If it has more scans than any encoder makes.
    """
    view = memoryview(data)
    kept = [view[:2]]
    exif = xmp = profile = b""
    width = height = scans = 0
    place = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None:
            break
        place, marker = found.start(), data[found.start() + 1]
        stop = place + 2 if marker in _ALONE or marker == _END else _end_of_segment(data, place)
        if marker == _SCAN:
            scans += 1
            stop = _end_of_scan(data, stop)
        if marker in _FRAMES and stop - place >= 9:
            height, width = struct.unpack_from(">HH", data, place + 5)
        if marker == 0xE1 and not exif and data.startswith(_EXIF, place + 4, stop):
            exif = data[place + 4 : stop]
        elif marker == 0xE1 and not xmp and data.startswith(_XMP, place + 4, stop):
            xmp = data[place + 4 : stop]
        elif marker == 0xE2 and not profile and data.startswith(_PROFILE, place + 4, stop):
            profile = data[place + 4 + len(_PROFILE) : stop]
        if _is_needed(marker, data, place, stop):
            kept.append(view[place:stop])
        place = stop
        if marker == _END:
            break
    else:
        raise DamageError(f"more than {MAX_SEGMENTS} segments")
    most = max(1, min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, width * height)))
    if scans > most:
        raise Refusal(
            f"is a JPEG of {width} x {height} pixels in {scans} scans; allowed: at most {most}; "
            "save it again"
        )
    return Essence(
        kind="JPEG",
        content=b"".join(kept),
        width=width,
        height=height,
        orientation=find_orientation(exif, xmp),
        space=find_space(profile),
    )


def _is_needed(marker: int, data: bytes, place: int, stop: int) -> bool:
    """Say whether a segment decides about pixels: two of the applications' tell the colours."""
    if marker == 0xE0:
        return data.startswith(b"JFIF\0", place + 4) and stop - place >= 18
    if marker == 0xEE:
        return data.startswith(b"Adobe", place + 4) and stop - place >= 16
    return not (0xE1 <= marker <= 0xEF or marker == 0xFE)


def _end_of_segment(data: bytes, place: int) -> int:
    """Return where a segment ends; the end of the file if it is cut off, for a decoder to say."""
    size = int.from_bytes(data[place + 2 : place + 4], "big")
    return min(place + 2 + max(size, 2), len(data))


def _end_of_scan(data: bytes, place: int) -> int:
    found = _END_OF_SCAN.search(data, place)
    return found.start() if found else len(data)
