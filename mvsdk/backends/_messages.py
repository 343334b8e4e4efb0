"""Messages between a pipeline and the process that runs its graphs.

    header length, uint32 little-endian | header, JSON | the arrays that the header lists, raw

Nothing is unpickled: a graph that took its process over may send what it likes. Both sides are one
machine, so arrays have its byte order.
"""

from __future__ import annotations

import json
import struct
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from mvsdk.errors import MvsdkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import BufferedReader

    from numpy.typing import NDArray

    Header = dict[str, Any]
    Description = tuple[str, str, tuple[int, ...]]
    """Name, dtype as `numpy.dtype.str` says it, and shape of an array."""

HELLO = b"\nmvsdk runtime process 1\n"
"""What the child sends first: a site's own start-up code may have printed before."""
MAX_HEADER_BYTES = 1 << 16
_MAX_NOISE_BYTES = 1 << 20
_LENGTH = struct.Struct("<I")
_ARRAYS = "arrays"


class MessageError(MvsdkError):
    """What arrived is no message, or not the one that was due."""


def write_message(
    file: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None
) -> None:
    """Write one message.

    Args:
        file: An unbuffered pipe.
        header: JSON values; the arrays are added to it.
        arrays: Arrays of numbers, by name.

    Raises:
        OSError: If the other side is gone.
    """
    sent = {name: np.asarray(value, order="C") for name, value in (arrays or {}).items()}
    listed = [[name, value.dtype.str, value.shape] for name, value in sent.items()]
    encoded = json.dumps({**header, _ARRAYS: listed}).encode()
    write_all(file, _LENGTH.pack(len(encoded)) + encoded)
    for value in sent.values():
        write_all(file, _bytes_of(value))


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all bytes to an unbuffered file, which may take some of them at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def skip_to_hello(file: BufferedReader) -> None:
    """Read until the child says that it is there.

    Raises:
        EOFError: If it ends before.
        MessageError: If it says too much else.
    """
    seen = b""
    for _ in range(_MAX_NOISE_BYTES):
        seen = (seen + _read(file, 1))[-len(HELLO) :]
        if seen == HELLO:
            return
    raise MessageError("no greeting")


def read_header(file: BufferedReader) -> Header:
    """Read the header of a message; its arrays are still to be read.

    Raises:
        EOFError: If the other side is gone.
        MessageError: If it is too long, or not a JSON object.
    """
    (length,) = _LENGTH.unpack(_read(file, _LENGTH.size))
    if length > MAX_HEADER_BYTES:
        raise MessageError(f"a header of {length} bytes")
    try:
        header: object = json.loads(_read(file, length))
    except (ValueError, RecursionError) as exc:
        raise MessageError("a header that is not JSON") from exc
    if not isinstance(header, dict):
        raise MessageError("a header that is no object")
    return cast("Header", header)


def listed_arrays(header: Header) -> list[Description]:
    """Return what the header of one's own parent says about the arrays of its message."""
    return [(name, dtype, tuple(shape)) for name, dtype, shape in header[_ARRAYS]]


def read_arrays(
    file: BufferedReader, header: Header, due: Iterable[Description]
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a message, which have to be those that are due.

    Args:
        file: Where the header came from.
        header: The header.
        due: What is expected; memory is taken for these, whatever the header says.

    Raises:
        EOFError: If the other side is gone.
        MessageError: If the header lists others.
    """
    due = list(due)
    if header.get(_ARRAYS) != [[name, dtype, list(shape)] for name, dtype, shape in due]:
        raise MessageError("other arrays than the graph has")
    arrays = {name: np.empty(shape, dtype) for name, dtype, shape in due}
    for value in arrays.values():
        _read_into(file, _bytes_of(value))
    return arrays


def _bytes_of(value: NDArray[Any]) -> memoryview:
    """Return the memory of a C-contiguous array, which may be a scalar, or empty."""
    flat: Any = value.reshape(-1).view(np.uint8)
    return memoryview(flat)


def _read(file: BufferedReader, count: int) -> bytes:
    data = bytearray(count)
    _read_into(file, memoryview(data))
    return bytes(data)


def _read_into(file: BufferedReader, view: memoryview) -> None:
    while view:
        count = file.readinto(view)
        if not count:
            raise EOFError
        view = view[count:]
