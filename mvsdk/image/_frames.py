"""GIF files of several frames without what is said between them."""

from __future__ import annotations

import struct
from collections.abc import Callable

from mvsdk.image._essence import DamageError

MAX_BLOCKS = 1 << 20
"""Blocks of a file, in each of which up to 255 bytes of pixels are."""


def read_gif_frames(data: bytes, check_size: Callable[[int, int], None]) -> bytes:
    """Keep the frames of a GIF file and how each is shown.

    Comments, and whatever programs put beside the frames, take decoders long to gather.

    Args:
        data: The file.
        check_size: Is told the columns and rows that each frame reaches to, and raises if they are
            too many.

    Returns:
        A file of the same frames, for a decoder.

    Raises:
        DamageError: If it is cut off before its first frame, or of too many blocks.
    """
    if len(data) < 13:
        raise DamageError("it is cut off")
    view = memoryview(data)
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    check_size(width, height)
    place = 13 + _palette_bytes(flags)
    kept: list[bytes | memoryview] = [view[:place]]
    for _ in range(MAX_BLOCKS):
        start, mark = place, data[place : place + 1]
        if mark == b"!":
            place = _end_of_blocks(data, place + 2)
            if data[start + 1 : start + 3] == b"\xf9\x04":
                kept.append(view[start:place])
        elif mark == b"," and place + 10 <= len(data):
            left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, place + 1)
            check_size(left + columns, top + rows)
            place = _end_of_blocks(data, place + 11 + _palette_bytes(flags))
            kept.append(view[start:place])
        elif mark in {b",", b";", b""}:
            return b"".join([*kept, b";"])
        else:  # stray bytes between blocks are stepped over
            place += 1
    raise DamageError(f"more than {MAX_BLOCKS} blocks")


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _end_of_blocks(data: bytes, place: int) -> int:
    for _ in range(MAX_BLOCKS):
        if place >= len(data) or not data[place]:
            return min(place + 1, len(data))
        place += 1 + data[place]
    raise DamageError(f"a block of more than {MAX_BLOCKS} parts")
