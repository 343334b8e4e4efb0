"""Operations element by element: arithmetic, comparison, choice and types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function


def _unary(compute: Callable[[Tensor], Tensor]) -> Function:
    def run(x: Tensor) -> Tensor:
        return compute(x)

    return run


def _binary(compute: Callable[[Tensor, Tensor], Tensor]) -> Function:
    def run(x: Tensor, y: Tensor) -> Tensor:
        return compute(x, y)

    return run


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Divide; whole numbers stay whole, as the type of the result says.

    The smallest of them by -1 is itself again: the processor's own division ends the process there.
    """
    if x.is_floating_point() or y.is_floating_point():
        return x / y
    opposite = y == -1
    return torch.where(
        opposite, -x, torch.div(x, torch.where(opposite, 1, y), rounding_mode="trunc")
    )


def _floor_div(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")


# The defaults of epsilon are float32's: in float16 those of `log` and `rsqrt` are zero.


def _inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


def _log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


def _rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


def _clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, alpha), beta)


def _threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.maximum(x, alpha)


def _logical_not(x: Tensor) -> Tensor:
    return x == 0


def _select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


def _exp2(x: Tensor) -> Tensor:
    return torch.exp2(x) if x.is_floating_point() else torch.pow(2, x)


_LIMITS: Mapping[str, torch.dtype] = {
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.uint16,
    "int32": torch.int32,
}


def _cast(
    x: Tensor,
    dtype: Literal["fp16", "fp32", "int8", "uint8", "int16", "uint16", "int32", "bool"],
) -> Tensor:
    """Change the type. Fractions are cut off.

    What lies outside the new type's range becomes its nearest end, and no number becomes zero: the
    format leaves both open.
    """
    if dtype == "bool":
        return x != 0
    if dtype in ("fp16", "fp32"):
        return x.float()
    limits = torch.iinfo(_LIMITS[dtype])
    if x.is_floating_point():  # float64 has every whole number of 32 bits, float32 has not
        x = x.double().nan_to_num(nan=0.0).clamp(limits.min, limits.max)
    return x.to(torch.int64).clamp(limits.min, limits.max)


def _scaled_along(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Let one number, or one for each place along an axis, stand against a tensor."""
    if values.numel() == 1:
        return values.reshape(())
    if axis is None or values.numel() != x.shape[axis]:
        raise ValueError(f"{values.numel()} values are given for the axis {axis} of {x.shape}")
    sizes = [1] * x.ndim
    sizes[axis] = -1
    return values.reshape(sizes)


def _quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: Literal["int8", "uint8"],
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """Return `clip(round(input / scale) + zero_point)`; halves are rounded to even."""
    values = torch.round(input / _scaled_along(scale, input, axis))
    if zero_point is not None:
        values = values + _scaled_along(zero_point, input, axis)
    return _cast(values, output_dtype)


def _dequantize(
    input: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """Return `scale * (input - zero_point)`."""
    values = input.float()
    if zero_point is not None:
        values = values - _scaled_along(zero_point, input, axis)
    return _scaled_along(scale, input, axis) * values


ELEMENTWISE: Mapping[str, Function] = {
    # one number
    "abs": _unary(torch.abs),
    "acos": _unary(torch.acos),
    "asin": _unary(torch.asin),
    "atan": _unary(torch.atan),
    "atanh": _unary(torch.atanh),
    "cast": _cast,
    "ceil": _unary(torch.ceil),
    "clip": _clip,
    "cos": _unary(torch.cos),
    "cosh": _unary(torch.cosh),
    "dequantize": _dequantize,
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "exp2": _exp2,
    "floor": _unary(torch.floor),
    "identity": _unary(lambda x: x),
    "inverse": _inverse,
    "log": _log,
    "logical_not": _logical_not,
    "quantize": _quantize,
    "round": _unary(torch.round),  # halves to even, as numpy
    "rsqrt": _rsqrt,
    "sign": _unary(torch.sign),
    "sin": _unary(torch.sin),
    "sinh": _unary(torch.sinh),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "tan": _unary(torch.tan),
    "tanh": _unary(torch.tanh),
    "threshold": _threshold,
    # two
    "add": _binary(torch.add),
    "equal": _binary(torch.eq),
    "floor_div": _floor_div,
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "logical_and": _binary(torch.logical_and),
    "logical_or": _binary(torch.logical_or),
    "logical_xor": _binary(torch.logical_xor),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mod": _binary(torch.remainder),  # the divisor's sign, as Python and numpy
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne),
    "pow": _binary(torch.pow),
    "real_div": divide,
    "sub": _binary(torch.sub),
    # and choice
    "select": _select,
}
