"""Counts in MP4 and MOV files, looked at before a library sets memory aside for what they promise.

A table of samples may say in eight bytes that there are thousands of millions of one size, for each
of which a demuxer keeps a line of its index. Tables are looked for wherever pixels are not: an
index may hide in boxes that are no index by name.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from typing import BinaryIO

import numpy as np

from mvsdk.image._essence import DamageError

MAX_BOXES = 1 << 17
"""Boxes of a file; a clip in fragments has two or three for each of them."""
MAX_INDEX_BYTES = 1 << 26
"""Whatever is not pixels or sound."""
MAX_SAMPLES = 1 << 21
"""Samples of all tracks: more than 2 hours of 240 frames a second."""
MAX_TABLES = 128
"""Tables of runs; a track has two."""

_TABLES = re.compile(rb"stsz|stz2|trun|stts|ctts|cmov")
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Table -> where past its name the number of samples is."""


def check_boxes(file: BinaryIO, size: int) -> None:
    """Check that a file does not promise more samples than a clip has.

    Args:
        file: An MP4 or MOV file.
        size: Its bytes.

    Raises:
        DamageError: If it does, or if its index is packed or larger than that of any clip.
    """
    samples: Counter[bytes] = Counter()
    place = index_bytes = tables = 0
    for _ in range(MAX_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return
        kind, length = _read_head(head, size - place)
        if kind != b"mdat":
            index_bytes += length
            if index_bytes > MAX_INDEX_BYTES:
                raise DamageError(f"its index has more than {MAX_INDEX_BYTES} bytes")
            file.seek(place)
            tables += _count_samples(file.read(length), samples)
        if tables > MAX_TABLES or (samples and max(samples.values()) > MAX_SAMPLES):
            raise DamageError(f"it promises more than {MAX_SAMPLES} frames and samples")
        place += length
    raise DamageError(f"it has more than {MAX_BOXES} boxes")


def _read_head(head: bytes, left: int) -> tuple[bytes, int]:
    """Return the kind of a box and its bytes, of so many that are left of the file."""
    size, kind = struct.unpack_from(">I4s", head)
    if size == 1 and len(head) == 16:
        (size,) = struct.unpack_from(">Q", head, 8)
    if size == 0:
        size = left
    return kind, min(max(size, 8), left)


def _count_samples(box: bytes, samples: Counter[bytes]) -> int:
    """Add what the tables in a box promise, by their kind; return the tables of runs."""
    tables = 0
    for found in _TABLES.finditer(box):
        kind, place = found[0], found.end()
        if kind == b"cmov":
            raise DamageError("its index is packed")
        if kind in _COUNTS:
            start = place + _COUNTS[kind]
            samples[kind] += int.from_bytes(box[start : start + 4], "big")
            continue
        tables += 1
        runs = min(int.from_bytes(box[place + 4 : place + 8], "big"), (len(box) - place - 8) // 8)
        if tables <= MAX_TABLES and runs > 0:
            values = np.frombuffer(box, ">u4", 2 * runs, place + 8)
            samples[kind] += int(values[::2].sum(dtype=np.uint64))
    return tables
