"""Files of weights of ML programs: a header, then data, each with a record of what it is.

    header, 64 bytes:  count (uint32), version (uint32), zeros
    record, 64 bytes:  mark (uint32), type (uint32), size in bytes (uint64), place of the data
                       (uint64), unused bits at its end (uint64), zeros
    data:              at a multiple of 64 bytes, little-endian

Values of less than a byte follow each other without gaps, the lowest bit first.

Reference:
    coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp, version 2.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsdk.errors import BundleError

ALIGNMENT = 64
VERSION = 2
MARK = 0xDEADBEEF

SUB_BYTE = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
"""Types of less than a byte -> their bits."""

_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQQ")
_TYPES = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    5: "bfloat16",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}


class BlobFile:
    """A file of weights, mapped: what nothing asks for is never read."""

    def __init__(self, path: Path) -> None:
        """Map a file.

        Args:
            path: An existing regular file.

        Raises:
            BundleError: If it cannot be read, or is of another format.
        """
        self._name = path.name
        try:
            # Copy-on-write: torch warns of arrays that cannot be written. Nothing writes to them.
            self._bytes = np.memmap(path, np.uint8, mode="c")
        except (OSError, ValueError) as exc:  # ValueError: an empty file
            raise self._damaged("cannot be mapped") from exc
        if self._bytes.size < ALIGNMENT:
            raise self._damaged(f"has {self._bytes.size} bytes, expected at least {ALIGNMENT}")
        count, version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())
        if version != VERSION:
            raise self._damaged(f"has format version {version}, expected {VERSION}")
        self._count = count

    def read(self, place: int, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
        """Return a constant; values of less than a byte as one byte each.

        Args:
            place: Where its record is, in bytes.
            dtype: Type that the program says, such as float16 or uint4.
            shape: Shape that it says.

        Returns:
            A view of the file, or a copy for bfloat16 (as float32) and types of less than a byte.

        Raises:
            BundleError: If there is no record, or one that differs from what the program says.
        """
        name, size, start, unused = self._record(place)
        if name != dtype:
            raise self._damaged(f"has {name} at {place}, the program says {dtype}")
        count = math.prod(shape)
        wanted = byte_count(dtype, count)
        padding = wanted * 8 - count * SUB_BYTE.get(dtype, 8)
        if size != wanted or (dtype in SUB_BYTE and unused != padding):
            raise self._damaged(
                f"has {size} bytes ({unused} bits unused) at {place}, expected {wanted} "
                f"({padding}) for {dtype} {tuple(shape)}"
            )
        return from_bytes(self._bytes[start : start + size], dtype, count).reshape(tuple(shape))

    def _record(self, place: int) -> tuple[str, int, int, int]:
        """Return type, size, place and unused bits of the data that a record describes."""
        end = self._bytes.size
        if place % ALIGNMENT or not ALIGNMENT <= place <= end - ALIGNMENT or not self._count:
            raise self._damaged(f"has no record at {place}, where the program expects one")
        record = self._bytes[place : place + _RECORD.size].tobytes()
        mark, number, size, start, unused = _RECORD.unpack(record)
        if mark != MARK:
            raise self._damaged(f"has the mark 0x{mark:08x} at {place}, expected 0x{MARK:08x}")
        if number not in _TYPES:
            raise self._damaged(f"has data of the unknown type {number} at {place}")
        if start % ALIGNMENT or start < 2 * ALIGNMENT or start + size > end:
            raise self._damaged(
                f"has data of {size} bytes at {start}, which is outside its {end} bytes or is not "
                f"at a multiple of {ALIGNMENT}"
            )
        return _TYPES[number], size, start, unused

    def _damaged(self, what: str) -> BundleError:
        return BundleError(f"the file of weights {self._name} {what}; export the package again")


def byte_count(dtype: str, count: int) -> int:
    """Return how many bytes values of a type have, as they are stored."""
    bits = SUB_BYTE.get(dtype) or stored_type(dtype).itemsize * 8
    return -(-count * bits // 8)


def stored_type(dtype: str) -> np.dtype[Any]:
    """Return the numpy type that holds a whole-byte type, as it is stored."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")


def from_bytes(data: NDArray[np.uint8], dtype: str, count: int) -> NDArray[Any]:
    """Return values of a type from their bytes.

    Args:
        data: Exactly the bytes of the values.
        dtype: Such as float16 or uint4.
        count: How many.
    """
    if dtype in SUB_BYTE:
        values = unpack_bits(data, SUB_BYTE[dtype], count)
        return (values ^ 8).view(np.int8) - np.int8(8) if dtype == "int4" else values
    values = data.view(stored_type(dtype))
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def unpack_bits(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Return unsigned values of some bits that follow each other, the lowest bit first.

    Args:
        data: `ceil(count * bits / 8)` bytes.
        bits: 1, 2, 3, 4, 6 or 8.
        count: How many values.
    """
    if data.size != -(-count * bits // 8):
        raise ValueError(f"{data.size} bytes for {count} values of {bits} bits")
    if bits == 8:
        return data
    # Words that hold whole values: one byte, or three for values of three and six bits.
    width = 3 if bits % 3 == 0 else 1
    words = data
    if width == 3:
        triples = np.zeros(-(-data.size // 3) * 3, np.uint32)
        triples[: data.size] = data
        words = triples[::3] | triples[1::3] << np.uint32(8) | triples[2::3] << np.uint32(16)
    shifts = np.arange(0, 8 * width, bits, dtype=words.dtype)
    values = (words[:, None] >> shifts) & words.dtype.type((1 << bits) - 1)
    return values.astype(np.uint8).reshape(-1)[:count]
