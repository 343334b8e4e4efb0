"""What of a picture file decides about its pixels, and nothing else of it.

Readers of containers make an `Essence` of a file. What they leave out (text, previews, tags,
profiles, further frames, whatever follows the picture) is stepped over and not read: it may be
broken, huge or a bomb. Nothing of it is inflated but the first bytes of a colour profile.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvsdk.image._colours import Space

ORIENTATION = 0x0112
"""EXIF's tag of the orientation."""
MAX_XMP_BYTES = 1 << 16
"""How far into XMP the orientation is looked for."""

_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])[\"'<]")
_EXIF_MARK = re.compile(rb"(?:Exif\0\0){0,2}")
_NUMBERS = {1: "B", 3: "H", 4: "L"}  # EXIF's BYTE, SHORT and LONG


class Refusal(Exception):
    """Why a picture is not read, though it may be whole; the text follows its name."""


class DamageError(Exception):
    """What of a file is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Essence:
    """What of a picture file decides about its pixels."""

    kind: str
    """Its format, by Pillow's name."""
    content: bytes
    """A file of the same pixels, for a decoder."""
    width: int
    """As its header has it, before it is turned."""
    height: int
    orientation: int = 1
    """Of EXIF, 1 to 8."""
    space: Space | None = None
    """What its colours are in; None for sRGB and for whatever is not recognised."""


def read_orientation(exif: bytes) -> int | None:
    """Find the orientation in EXIF, past whatever is odd about the rest.

    Returns:
        1 to 8; None if it has none, or one that is no whole number of these.
    """
    mark = _EXIF_MARK.match(exif)
    start = mark.end() if mark else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        return None
    try:
        (place,) = struct.unpack_from(f"{order}L", exif, start + 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start + place)
        for index in range(count):
            entry = start + place + 2 + 12 * index
            tag, kind, values = struct.unpack_from(f"{order}HHL", exif, entry)
            if tag == ORIENTATION:
                if kind not in _NUMBERS or values != 1:
                    return None
                (value,) = struct.unpack_from(order + _NUMBERS[kind], exif, entry + 8)
                return value if 1 <= value <= 8 else None
    except struct.error:  # it ends before that
        pass
    return None


def find_orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation that EXIF says, else XMP, else 1."""
    return read_orientation(exif) or read_xmp_orientation(xmp) or 1


def read_xmp_orientation(xmp: bytes) -> int | None:
    """Find the orientation in XMP, as programs write it that have no EXIF."""
    found = _XMP_ORIENTATION.search(xmp, 0, MAX_XMP_BYTES)
    return int(found[1]) if found else None
