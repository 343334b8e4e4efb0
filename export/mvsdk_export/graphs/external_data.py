"""Constants of ONNX models in files beside them, moved from file to file without being loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from mvsdk_export.errors import ExportError

INLINE_BYTES = 1 << 10
"""Constants below this stay inside the model, where shape inference can read them."""

_ALIGNMENT = 1 << 12
"""Offsets are multiples of a memory page, so that a runtime can map the file."""
_COPY_BYTES = 1 << 24


def move_tensors(
    tensors: Iterable[onnx.TensorProto], home: Path, target: Path
) -> Iterator[onnx.TensorProto]:
    """Copy the values of large constants to a file and yield what refers to them.

    Args:
        tensors: Constants of a model, inside it or in files.
        home: Folder of the model.
        target: File to write; the model that refers to it is saved beside it.

    Raises:
        ExportError: If a file of the model is too short.
    """
    target.unlink(missing_ok=True)
    for tensor in tensors:
        size = tensor_bytes(tensor)
        if size < INLINE_BYTES or not (uses_external_data(tensor) or tensor.HasField("raw_data")):
            yield _inline(tensor, home)
            continue
        with target.open("ab") as sink:
            offset = -(-sink.tell() // _ALIGNMENT) * _ALIGNMENT
            sink.truncate(offset)
            sink.seek(offset)
            for piece in _pieces(tensor, home):
                sink.write(piece)
        yield _referring(tensor, target.name, offset)


def _pieces(tensor: onnx.TensorProto, home: Path) -> Iterator[bytes]:
    """Return the bytes of a tensor, some at a time if they are in a file."""
    if not uses_external_data(tensor):
        yield tensor.raw_data
        return
    place = ExternalDataInfo(tensor)
    with (home / place.location).open("rb") as source:
        source.seek(place.offset or 0)
        left = tensor_bytes(tensor)
        while left and (piece := source.read(min(left, _COPY_BYTES))):
            left -= len(piece)
            yield piece
    if left:
        raise ExportError(
            f"{place.location} ends inside the constant {tensor.name!r}, {left} bytes are missing; "
            "export the model again"
        )


def _referring(tensor: onnx.TensorProto, location: str, offset: int) -> onnx.TensorProto:
    """Return a tensor whose values are in a file."""
    moved = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    moved.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": location, "offset": offset, "length": tensor_bytes(tensor)}
    for key, value in place.items():
        moved.external_data.add(key=key, value=str(value))
    return moved


def _inline(tensor: onnx.TensorProto, home: Path) -> onnx.TensorProto:
    """Return a tensor that holds its values itself."""
    if not uses_external_data(tensor):
        return tensor
    found = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    found.raw_data = b"".join(_pieces(tensor, home))
    return found


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes of the values of a constant, wherever they are."""
    if uses_external_data(tensor) and (length := ExternalDataInfo(tensor).length):
        return length
    return len(tensor.raw_data) or size_bytes(tensor.dims, tensor.data_type)


def size_bytes(dims: Iterable[int], kind: int) -> int:
    """Return the bytes of a tensor of a shape and an ONNX data type."""
    return math.prod(dims) * helper.tensor_dtype_to_np_dtype(kind).itemsize
