"""Files of weights of ML programs: a header, then entries that say type, size and place of data.

Reference:
    coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp (version 2).
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

_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<IIQQQ")
_ENTRY_BYTES = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
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
SUB_BYTE = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
"""Types of less than a byte -> bits. Values follow each other, the lowest bit first."""


class BlobFile:
    """A file of weights, mapped and not read."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            BundleError: If it is no such file.
        """
        self._name = path.name
        try:
            self._bytes = np.memmap(path, np.uint8, mode="r")
        except (OSError, ValueError) as exc:  # ValueError: an empty file
            raise self._damaged("cannot be read") from exc
        if len(self._bytes) < _ENTRY_BYTES:
            raise self._damaged(f"has {len(self._bytes)} bytes, less than a header")
        _, version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())
        if version != _VERSION:
            raise self._damaged(f"is of version {version}, not {_VERSION}")

    def read(self, offset: int, kind: str, shape: Sequence[int]) -> NDArray[Any]:
        """Return an entry; values of less than a byte as one byte each.

        Args:
            offset: Where the entry is.
            kind: Type that the description says, such as float16 or uint4.
            shape: Shape that it says.

        Raises:
            BundleError: If no entry is there, or it is another than the description says.
        """
        if offset % _ENTRY_BYTES or not 0 < offset <= len(self._bytes) - _ENTRY_BYTES:
            raise self._damaged(f"has no entry at {offset}, which the description names")
        head = self._bytes[offset : offset + _ENTRY.size].tobytes()
        sentinel, type_, size, start, padding = _ENTRY.unpack(head)
        if sentinel != _SENTINEL:
            raise self._damaged(f"has no entry at {offset}: its mark is 0x{sentinel:08x}")
        if _TYPES.get(type_) != kind:
            found = _TYPES.get(type_, f"type {type_}")
            raise self._damaged(f"has {found} at {offset}, the description says {kind}")
        count = math.prod(shape)
        bits = SUB_BYTE.get(kind)
        wanted = math.ceil(count * bits / 8) if bits else count * _numpy_type(kind).itemsize
        if size != wanted or (bits and padding != wanted * 8 - count * bits):
            raise self._damaged(f"has {size} bytes at {offset}, want {wanted} for {tuple(shape)}")
        if start + size > len(self._bytes):
            raise self._damaged(f"ends inside the data of the entry at {offset}")
        data = self._bytes[start : start + size]
        values = _unpack(data, bits, count, signed=kind[0] == "i") if bits else _view(data, kind)
        return values.reshape(tuple(shape))

    def _damaged(self, what: str) -> BundleError:
        return BundleError(f"the file of weights {self._name} {what}; export the package again")


def _numpy_type(kind: str) -> np.dtype[Any]:
    return np.dtype("<u2" if kind == "bfloat16" else kind).newbyteorder("<")


def _view(data: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    values = data.view(_numpy_type(kind))
    if kind == "bfloat16":
        return (values.astype("<u4") << 16).view("<f4")
    return values


def _unpack(data: NDArray[np.uint8], bits: int, count: int, *, signed: bool) -> NDArray[Any]:
    stream = np.unpackbits(np.asarray(data), bitorder="little", count=count * bits)
    weights = 1 << np.arange(bits)
    values = (stream.reshape(count, bits) * weights).sum(axis=1)
    if signed:
        return np.where(values >= 1 << (bits - 1), values - (1 << bits), values).astype(np.int8)
    return values.astype(np.uint8)
