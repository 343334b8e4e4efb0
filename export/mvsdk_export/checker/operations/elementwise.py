"""Operations that compute each element by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.checker.arguments import Arguments

_CASTS = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "bool": torch.bool,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.int32,
    "int32": torch.int32,
}


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Arguments], Tensor]:
    return lambda a: function(a.tensor())


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Arguments], Tensor]:
    return lambda a: function(a.tensor("x"), a.tensor("y"))


def _cast(a: Arguments) -> Tensor:
    """Convert; floats are cut off towards zero."""
    return a.tensor().to(_CASTS[a.text("dtype")])


def _real_div(x: Tensor, y: Tensor) -> Tensor:
    if x.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")


def _select(a: Arguments) -> Tensor:
    return torch.where(a.tensor("cond").bool(), a.tensor("a"), a.tensor("b"))


def _gelu(a: Arguments) -> Tensor:
    x, mode = a.tensor(), a.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def _clip(a: Arguments) -> Tensor:
    return a.tensor().clamp(a.float("alpha"), a.float("beta"))


def _prelu(a: Arguments) -> Tensor:
    return F.prelu(a.tensor(), a.tensor("alpha"))


def _softplus_parametric(a: Arguments) -> Tensor:
    x = a.tensor()
    along = [1, -1, *[1] * (x.dim() - 2)]
    alpha, beta = a.tensor("alpha").reshape(along), a.tensor("beta").reshape(along)
    return alpha * F.softplus(beta * x)


def _quantize(a: Arguments) -> Tensor:
    x, scale, zero = _with_axis(a)
    least, most = (-128, 127) if a.text("output_dtype") == "int8" else (0, 255)
    return torch.clamp(torch.round(x / scale) + zero, least, most)


def _dequantize(a: Arguments) -> Tensor:
    x, scale, zero = _with_axis(a)
    return (x.float() - zero) * scale


def _with_axis(a: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    x, scale = a.tensor("input"), a.tensor("scale")
    zero = a.tensor("zero_point") if a.has("zero_point") else torch.zeros(())
    along = [1] * x.dim()
    if a.has("axis"):
        along[a.int("axis")] = -1
    spread = [y.reshape(along) if y.dim() else y for y in (scale, zero.float())]
    return x, spread[0], spread[1]


ELEMENTWISE: Mapping[str, Callable[[Arguments], Tensor]] = {
    "abs": _unary(torch.abs),
    "acos": _unary(torch.acos),
    "add": _binary(torch.add),
    "asin": _unary(torch.asin),
    "atan": _unary(torch.atan),
    "atanh": lambda a: torch.atanh(a.tensor()),
    "cast": _cast,
    "ceil": _unary(torch.ceil),
    "clamped_relu": lambda a: F.leaky_relu(a.tensor(), a.float("alpha")).clamp(max=a.float("beta")),
    "clip": _clip,
    "cos": _unary(torch.cos),
    "cosh": _unary(torch.cosh),
    "dequantize": _dequantize,
    "elu": lambda a: F.elu(a.tensor(), a.float("alpha", 1.0)),
    "equal": _binary(torch.eq),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "exp2": _unary(torch.exp2),
    "floor": _unary(torch.floor),
    "floor_div": lambda a: torch.div(a.tensor("x"), a.tensor("y"), rounding_mode="floor"),
    "gelu": _gelu,
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "identity": _unary(torch.clone),
    "inverse": lambda a: 1 / (a.tensor() + a.float("epsilon", 1e-4)),
    "leaky_relu": lambda a: F.leaky_relu(a.tensor(), a.float("alpha", 0.01)),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "linear_activation": lambda a: a.float("alpha") * a.tensor() + a.float("beta"),
    "log": lambda a: torch.log(a.tensor() + a.float("epsilon", 1e-45)),
    "logical_and": _binary(torch.logical_and),
    "logical_not": _unary(torch.logical_not),
    "logical_or": _binary(torch.logical_or),
    "logical_xor": _binary(torch.logical_xor),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mod": _binary(torch.remainder),
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne),
    "pow": _binary(torch.pow),
    "prelu": _prelu,
    "quantize": _quantize,
    "real_div": _binary(_real_div),
    "relu": _unary(torch.relu),
    "relu6": _unary(F.relu6),
    "round": _unary(torch.round),
    "rsqrt": lambda a: torch.rsqrt(a.tensor() + a.float("epsilon", 1e-12)),
    "scaled_tanh": lambda a: a.float("alpha", 1.0) * torch.tanh(a.float("beta", 1.0) * a.tensor()),
    "select": _select,
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": lambda a: (a.float("alpha", 0.2) * a.tensor() + a.float("beta", 0.5)).clamp(
        0, 1
    ),
    "sign": _unary(torch.sign),
    "silu": _unary(F.silu),
    "sin": _unary(torch.sin),
    "sinh": _unary(torch.sinh),
    "softplus": _unary(F.softplus),
    "softplus_parametric": _softplus_parametric,
    "softsign": _unary(F.softsign),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "sub": _binary(torch.sub),
    "tan": _unary(torch.tan),
    "tanh": _unary(torch.tanh),
    "threshold": lambda a: a.tensor().clamp(min=a.float("alpha")),
    "thresholded_relu": lambda a: torch.where(
        a.tensor() >= a.float("alpha", 1.0), a.tensor(), torch.zeros(())
    ),
}
