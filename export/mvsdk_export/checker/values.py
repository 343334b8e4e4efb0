"""Types and constants of ML programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvsdk.errors import BundleError
from mvsdk_export.targets.coreml.tools import load_protocol

MAX_ELEMENTS = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """Type of a value: a tensor, or a scalar of no axes."""

    dtype: str
    """In lower case, such as float16, int32, bool, uint4 or string."""
    shape: tuple[int, ...]


def tensor_type(kind: Any) -> TensorType:
    """Read a `MIL_pb2.ValueType`.

    Raises:
        BundleError: If it is no tensor, or has a size that is not fixed.
    """
    if kind.WhichOneof("type") != "tensorType":
        raise BundleError(
            f"the program has a value of the kind {kind.WhichOneof('type')}, want a tensor; "
            "convert it anew"
        )
    known = load_protocol()[1].DataType
    dimensions = kind.tensorType.dimensions
    if any(item.WhichOneof("dimension") != "constant" for item in dimensions):
        raise BundleError("the program has a size that is not fixed; convert it for one size")
    shape = tuple(item.constant.size for item in dimensions)
    if math.prod(shape) > MAX_ELEMENTS:
        raise BundleError(f"the program has a tensor of shape {shape}, too large; convert it anew")
    number = kind.tensorType.dataType
    name = known.Name(number).lower() if number in known.values() else f"type {number}"
    return TensorType(dtype=name, shape=shape)


def read_immediate(value: Any) -> Any:
    """Read a constant that is in the description.

    Returns:
        A string, or an array of the type's shape.

    Raises:
        BundleError: If it is no tensor, or has another number of elements than its type says.
    """
    kind = tensor_type(value.type)
    tensor = value.immediateValue.tensor
    held = tensor.WhichOneof("value")
    if value.immediateValue.WhichOneof("value") != "tensor" or held is None:
        raise BundleError("the program has a constant that is no tensor; convert it anew")
    values = getattr(tensor, held).values
    if kind.dtype == "string":
        return values[0] if len(values) == 1 and not kind.shape else list(values)
    if held == "bytes":
        found = np.frombuffer(values, np.dtype(kind.dtype).newbyteorder("<"))
    else:
        found = np.array(values, np.dtype(kind.dtype))
    if found.size != math.prod(kind.shape):
        raise BundleError(
            f"the program has a constant of {found.size} elements, its type says {kind.shape}; "
            "convert it anew"
        )
    return found.reshape(kind.shape)
