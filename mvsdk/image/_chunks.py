"""PNG, WebP, GIF and BMP files without what is said beside the picture."""

from __future__ import annotations

import struct
import zlib

from mvsdk.image._colours import DISPLAY_P3, MAX_PROFILE_BYTES, Space, find_space
from mvsdk.image._essence import (
    MAX_XMP_BYTES,
    DamageError,
    Essence,
    Refusal,
    find_orientation,
)

MAX_CHUNKS = 1 << 20

PNG_MARK = b"\x89PNG\r\n\x1a\n"
_CICP_DISPLAY_P3 = b"\x0c\x0d\0\1"
"""Primaries, curve, no matrix, full range, by the numbers of ITU-T H.273."""
_XMP_TEXT = b"XML:com.adobe.xmp\0\0\0"  # and not compressed
_ANIMATION, _XMP, _EXIF, _PROFILE = 0x02, 0x04, 0x08, 0x20  # flags of VP8X
_SHOWN = frozenset({b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM"})
_RLE = frozenset({1, 2})


def read_png(data: bytes) -> Essence:
    """Keep the chunks of a PNG file that decoders must know, and transparency.

    Frames of an animation go too: its first is the picture of all who know none.

    Raises:
        DamageError: If it makes no sense.
    """
    view = memoryview(data)
    kept = [view[:8]]
    said: dict[bytes, memoryview] = {}
    width = height = 0
    place = 8
    for _ in range(MAX_CHUNKS):
        if place + 8 > len(data):
            break
        size, kind = struct.unpack_from(">I4s", data, place)
        stop = place + 12 + size if kind.isalpha() else len(data)
        body = view[place + 8 : min(place + 8 + size, len(data))]
        if kind == b"IHDR":
            if len(body) < 8:
                raise DamageError("it is cut off")
            width, height = struct.unpack_from(">II", body)
        if kind == b"tRNS" or not kind[0] & 0x20:
            kept.append(view[place:stop])
        elif kind != b"iTXt" or data.startswith(_XMP_TEXT, place + 8):
            said.setdefault(kind, body)
        place = stop
        if kind == b"IEND":
            break
    else:
        raise DamageError(f"more than {MAX_CHUNKS} chunks")
    exif, xmp = bytes(said.get(b"eXIf", b"")), bytes(said.get(b"iTXt", b"")[:MAX_XMP_BYTES])
    return Essence(
        kind="PNG",
        content=b"".join(kept),
        width=width,
        height=height,
        orientation=find_orientation(exif, xmp),
        space=_find_png_space(said),
    )


def _find_png_space(said: dict[bytes, memoryview]) -> Space | None:
    if b"cICP" in said:  # which goes before a profile
        return DISPLAY_P3 if bytes(said[b"cICP"][:5]) == _CICP_DISPLAY_P3 else None
    _, _, packed = bytes(said.get(b"iCCP", b"")[:MAX_PROFILE_BYTES]).partition(b"\0")
    if packed[:1] != b"\0":  # another method than that of zlib
        return None
    try:
        profile = zlib.decompressobj().decompress(packed[1:], MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    return find_space(profile)


def read_webp(data: bytes) -> Essence:
    """Keep the chunks of a WebP file that show its first frame.

    Raises:
        DamageError: If it makes no sense.
    """
    chunks = _read_riff(data)
    first, head = chunks[0] if chunks else (b"", memoryview(b""))
    if first == b"VP8X" and len(head) >= 10:
        flags = head[0]
        width, height = (int.from_bytes(head[i : i + 3], "little") + 1 for i in (4, 7))
        head = memoryview(bytes([flags & ~(_XMP | _EXIF | _PROFILE)]) + head[1:])
    elif first == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and len(head) >= 10:
        flags = 0
        width, height = (x & 0x3FFF for x in struct.unpack_from("<HH", head, 6))
    elif first == b"VP8L" and len(head) >= 5:
        flags = 0
        bits = int.from_bytes(head[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise DamageError("it starts with no picture")
    kept, frames = [(first, head)], 0
    said: dict[bytes, memoryview] = {}
    for kind, body in chunks[1:] if first == b"VP8X" else []:
        if kind in _SHOWN or (kind == b"ANMF" and not frames):
            frames += kind == b"ANMF"
            kept.append((kind, body))
        said.setdefault(kind, body)
    exif = bytes(said.get(b"EXIF", b"")) if flags & _EXIF else b""
    xmp = bytes(said.get(b"XMP ", b"")[:MAX_XMP_BYTES]) if flags & _XMP else b""
    profile = bytes(said.get(b"ICCP", b"")) if flags & _PROFILE else b""
    return Essence(
        kind="WEBP",
        content=_write_riff(kept),
        width=width,
        height=height,
        orientation=find_orientation(exif, xmp),
        space=find_space(profile),
    )


def _read_riff(data: bytes) -> list[tuple[bytes, memoryview]]:
    """List the chunks of a WebP file; the last may be cut off."""
    view = memoryview(data)
    chunks: list[tuple[bytes, memoryview]] = []
    place, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while place + 8 <= end:
        if len(chunks) == MAX_CHUNKS:
            raise DamageError(f"more than {MAX_CHUNKS} chunks")
        kind, size = struct.unpack_from("<4sI", data, place)
        if place + 8 + size > end:
            raise DamageError("it is cut off")
        chunks.append((kind, view[place + 8 : place + 8 + size]))
        place += 8 + size + (size & 1)
    return chunks


def _write_riff(chunks: list[tuple[bytes, memoryview]]) -> bytes:
    parts: list[bytes | memoryview] = [b"WEBP"]
    for kind, body in chunks:
        parts += [struct.pack("<4sI", kind, len(body)), body, b"\0" * (len(body) & 1)]
    return b"".join([struct.pack("<4sI", b"RIFF", sum(map(len, parts))), *parts])


def read_gif(data: bytes) -> Essence:
    """Keep the first frame of a GIF file, and which of its colours is transparent.

    Raises:
        DamageError: If it has none.
    """
    if len(data) < 13:
        raise DamageError("it is cut off")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = head = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    for _ in range(MAX_CHUNKS):
        mark = data[place : place + 1]
        if mark == b"!":
            control = _read_control(data, place) or control
            place = _end_of_blocks(data, place + 2)
        elif mark in {b",", b";", b""}:
            break
        else:  # stray bytes between blocks are stepped over
            place += 1
    else:
        raise DamageError(f"more than {MAX_CHUNKS} blocks before its first frame")
    if mark != b"," or place + 10 > len(data):
        raise DamageError("it holds no frame")
    left, top, columns, rows = struct.unpack_from("<HHHH", data, place + 1)
    return Essence(
        kind="GIF",
        content=b"".join([data[:head], control, memoryview(data)[place:]]),
        width=max(width, left + columns),
        height=max(height, top + rows),
    )


def _read_control(data: bytes, place: int) -> bytes:
    """Return which colour is transparent, as a block of a GIF file; nothing if this says nothing.

    What becomes of the frame afterwards concerns the next one.
    """
    block = data[place : place + 8]
    if block[:3] != b"!\xf9\x04" or len(block) < 8:
        return b""
    return b"!\xf9\x04" + bytes([block[3] & 1]) + b"\0\0" + block[6:7] + b"\0"


def _end_of_blocks(data: bytes, place: int) -> int:
    for _ in range(MAX_CHUNKS):
        if place >= len(data) or not data[place]:
            return place + 1
        place += 1 + data[place]
    raise DamageError(f"more than {MAX_CHUNKS} blocks of text")


def read_bmp(data: bytes) -> Essence:
    """Read the header of a BMP file, which has nothing beside its picture.

    Raises:
        DamageError: If it makes no sense.
        Refusal: If it is longer than its pixels can be.
    """
    try:
        (size,) = struct.unpack_from("<I", data, 14)
        if size == 12:
            width, height = struct.unpack_from("<HH", data, 18)
            packing = 0
        else:
            width, height, packing = struct.unpack_from("<Ii4xI", data, 18)
    except struct.error as exc:
        raise DamageError("it is cut off") from exc
    height = abs(height)
    # What unpacks runs of pixels is slow, and reads on for as long as there are any.
    most = 2 * width * height + (1 << 16)
    if packing in _RLE and len(data) > most:
        raise Refusal(
            f"has {len(data)} bytes of packed pixels; allowed for {width} x {height}: at most "
            f"{most}; save it as PNG"
        )
    return Essence(kind="BMP", content=data, width=width, height=height)
