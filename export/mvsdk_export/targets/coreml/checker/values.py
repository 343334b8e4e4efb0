"""Types and constants of ML programs, as their descriptions have them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsdk.errors import BundleError
from mvsdk_export.targets.coreml.checker.blob import SUB_BYTE, byte_count, from_bytes
from mvsdk_export.targets.coreml.tools import load_protocol

MAX_ELEMENTS = 1 << 31
"""Most elements of one tensor. A claim above it is taken for damage, before memory is asked for."""

ANY = -1
"""A size that the program does not fix."""

Constant = NDArray[Any] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """Type of a value."""

    dtype: str
    """In lower case, such as float16, int32, bool, uint4 or string. What is no tensor has the name
    of its kind: list, tuple, dictionary or state."""
    shape: tuple[int, ...]
    """Sizes, `ANY` where the program fixes none; empty for scalars."""

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor."""
        return self.dtype not in ("list", "tuple", "dictionary", "state", "nothing")

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor of a shape is of this type."""
        return len(shape) == len(self.shape) and all(
            wanted in (ANY, size) for wanted, size in zip(self.shape, shape, strict=True)
        )


def read_type(kind: Any) -> TensorType:
    """Read a `MIL_pb2.ValueType`.

    Raises:
        BundleError: If it claims a size that no tensor has.
    """
    form = kind.WhichOneof("type")
    if form != "tensorType":
        return TensorType(dtype=(form or "nothing").removesuffix("Type"), shape=())
    shape = tuple(
        item.constant.size if item.WhichOneof("dimension") == "constant" else ANY
        for item in kind.tensorType.dimensions
    )
    if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise BundleError(
            f"the program has a tensor of shape {shape[:8]}, more than {MAX_ELEMENTS} elements; "
            "export the package again"
        )
    number = kind.tensorType.dataType
    return TensorType(dtype=_type_names().get(number, f"type {number}"), shape=shape)


@functools.cache
def _type_names() -> dict[int, str]:
    return {number: name.lower() for name, number in load_protocol()[1].DataType.items()}


def read_immediate(value: Any) -> Constant:
    """Read a constant that the description itself holds.

    Args:
        value: A `MIL_pb2.Value` with an immediate value.

    Returns:
        An array of the type's shape, or a text.

    Raises:
        BundleError: If it is no tensor, or not of the type that it claims.
    """
    kind = read_type(value.type)
    tensor = value.immediateValue.tensor
    held = tensor.WhichOneof("value")
    if value.immediateValue.WhichOneof("value") != "tensor" or held is None or not kind.is_tensor:
        raise BundleError(
            "the program has a constant that is no tensor; the checker reads tensors only"
        )
    content = getattr(tensor, held).values
    count = math.prod(kind.shape)
    if held == "strings" and kind.dtype == "string" and len(content) == 1 and not kind.shape:
        return str(content[0])
    try:
        return _array(content, held, kind.dtype, count).reshape(kind.shape)
    except (TypeError, ValueError, OverflowError) as exc:
        raise BundleError(
            f"the program has a constant that is not of its type {kind.dtype} {kind.shape[:8]}: "
            f"{exc}; export the package again"
        ) from exc


def _array(content: Any, held: str, dtype: str, count: int) -> NDArray[Any]:
    """Return an immediate tensor's elements, in one axis."""
    if held == "strings" or dtype == "string":
        raise TypeError(f"{len(content)} texts")
    if held == "bytes":
        data = np.frombuffer(content, np.uint8)
        if data.size != byte_count(dtype, count):
            raise ValueError(f"{data.size} bytes")
        return from_bytes(data, dtype, count)
    if len(content) != count:
        raise ValueError(f"{len(content)} elements")
    return np.array(content, array_type(dtype))


def array_type(dtype: str) -> np.dtype[Any]:
    """Return the numpy type in which constants of a type are held."""
    if dtype in SUB_BYTE:
        return np.dtype(np.int8 if dtype == "int4" else np.uint8)
    if dtype == "bfloat16":
        return np.dtype(np.float32)
    if dtype not in _HELD:
        raise TypeError(f"the type {dtype} is not known")
    return np.dtype(dtype)


_HELD = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)
