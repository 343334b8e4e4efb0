"""Operations of ML programs, each with its answer in numpy or PyTorch, for tests of the checker.

A case is what the builder is told, and what must come out. Inputs: `x` and `y` of shape
(2, 4, 6, 8), `y` positive; `u` in [-0.9, 0.9]; `n` whole numbers from -6 to 6, `m` from 1 to 5, of
shape (3, 8); `t` truths of (3, 8), as whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Case = tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]

_random = np.random.default_rng(5)


def halves(*shape: int, low: float = -2.0, high: float = 2.0) -> NDArray[np.float32]:
    """Return random float32 numbers that float16 has too."""
    return _random.uniform(low, high, shape).astype(np.float16).astype(np.float32)


def inputs(dtype: type[np.floating[Any]]) -> dict[str, NDArray[Any]]:
    """Return the inputs of all cases."""
    random = np.random.default_rng(6)
    shape = (2, 4, 6, 8)
    floats = {
        "x": random.uniform(-3, 3, shape),
        "y": random.uniform(0.1, 3, shape),
        "u": random.uniform(-0.9, 0.9, shape),
    }
    ints = {
        "n": random.integers(-6, 7, (3, 8)),
        "m": random.integers(1, 6, (3, 8)),
        "t": random.integers(0, 2, (3, 8)),
    }
    return {
        **{name: x.astype(np.float16).astype(dtype) for name, x in floats.items()},
        **{name: x.astype(np.int32) for name, x in ints.items()},
    }


def wanted(case: Case, arrays: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the answers of a case, float32 where they have fractions."""
    given = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in arrays.items()}
    made = case[1](SimpleNamespace(**given))
    several = made if isinstance(made, tuple | list) else (made,)
    return [np.asarray(x) for x in several]


def _erf(x: NDArray[Any]) -> NDArray[Any]:
    return np.vectorize(math.erf)(x)


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 1 / (1 + np.exp(-x))


def _softplus(x: NDArray[Any]) -> NDArray[Any]:
    return np.log1p(np.exp(x))


def _channels(values: NDArray[Any]) -> NDArray[Any]:
    return values[:, None, None]


def scalar(x: Any, value: float) -> Any:
    """Return a constant of the type of a value under construction."""
    from coremltools.converters.mil.mil import types

    return types.nptype_from_builtin(x.dtype)(value)


def like(x: Any, value: NDArray[Any]) -> NDArray[Any]:
    """Return an array of the type of a value under construction."""
    from coremltools.converters.mil.mil import types

    return value.astype(types.nptype_from_builtin(x.dtype))


ALPHA, BETA = halves(4), halves(4, low=0.5)

UNARY: dict[str, Case] = {
    "abs": (lambda mb, v: mb.abs(x=v.x), lambda v: np.abs(v.x)),
    "abs_int": (lambda mb, v: mb.abs(x=v.n), lambda v: np.abs(v.n)),
    "acos": (lambda mb, v: mb.acos(x=v.u), lambda v: np.arccos(v.u)),
    "asin": (lambda mb, v: mb.asin(x=v.u), lambda v: np.arcsin(v.u)),
    "atan": (lambda mb, v: mb.atan(x=v.x), lambda v: np.arctan(v.x)),
    "atanh": (lambda mb, v: mb.atanh(x=v.u), lambda v: np.arctanh(v.u)),
    "ceil": (lambda mb, v: mb.ceil(x=v.x), lambda v: np.ceil(v.x)),
    "clip": (
        lambda mb, v: mb.clip(x=v.x, alpha=scalar(v.x, -0.5), beta=scalar(v.x, 1.25)),
        lambda v: np.clip(v.x, -0.5, 1.25),
    ),
    "cos": (lambda mb, v: mb.cos(x=v.x), lambda v: np.cos(v.x)),
    "cosh": (lambda mb, v: mb.cosh(x=v.x), lambda v: np.cosh(v.x)),
    "erf": (lambda mb, v: mb.erf(x=v.x), lambda v: _erf(v.x)),
    "exp": (lambda mb, v: mb.exp(x=v.x), lambda v: np.exp(v.x)),
    "exp2": (lambda mb, v: mb.exp2(x=v.x), lambda v: np.exp2(v.x)),
    "exp2_int": (lambda mb, v: mb.exp2(x=v.m), lambda v: 2**v.m),
    "floor": (lambda mb, v: mb.floor(x=v.x), lambda v: np.floor(v.x)),
    "identity": (lambda mb, v: mb.identity(x=v.x), lambda v: v.x),
    "inverse": (lambda mb, v: mb.inverse(x=v.y), lambda v: 1 / (v.y + 1e-4)),
    "inverse_epsilon": (
        lambda mb, v: mb.inverse(x=v.y, epsilon=scalar(v.y, 0.5)),
        lambda v: 1 / (v.y + 0.5),
    ),
    "log": (lambda mb, v: mb.log(x=v.y), lambda v: np.log(v.y)),
    "log_epsilon": (
        lambda mb, v: mb.log(x=v.y, epsilon=scalar(v.y, 1)),
        lambda v: np.log1p(v.y),
    ),
    "logical_not": (
        lambda mb, v: mb.logical_not(x=mb.cast(x=v.t, dtype="bool")),
        lambda v: 1 - v.t,
    ),
    "round": (lambda mb, v: mb.round(x=v.x), lambda v: np.rint(v.x)),
    "rsqrt": (lambda mb, v: mb.rsqrt(x=v.y), lambda v: 1 / np.sqrt(v.y)),
    "rsqrt_epsilon": (
        lambda mb, v: mb.rsqrt(x=v.y, epsilon=scalar(v.y, 2)),
        lambda v: 1 / np.sqrt(v.y + 2),
    ),
    "sign": (lambda mb, v: mb.sign(x=v.x), lambda v: np.sign(v.x)),
    "sign_int": (lambda mb, v: mb.sign(x=v.n), lambda v: np.sign(v.n)),
    "sin": (lambda mb, v: mb.sin(x=v.x), lambda v: np.sin(v.x)),
    "sinh": (lambda mb, v: mb.sinh(x=v.x), lambda v: np.sinh(v.x)),
    "sqrt": (lambda mb, v: mb.sqrt(x=v.y), lambda v: np.sqrt(v.y)),
    "square": (lambda mb, v: mb.square(x=v.x), lambda v: v.x**2),
    "square_int": (lambda mb, v: mb.square(x=v.n), lambda v: v.n**2),
    "tan": (lambda mb, v: mb.tan(x=v.u), lambda v: np.tan(v.u)),
    "tanh": (lambda mb, v: mb.tanh(x=v.x), lambda v: np.tanh(v.x)),
    "threshold": (
        lambda mb, v: mb.threshold(x=v.x, alpha=scalar(v.x, 0.25)),
        lambda v: np.maximum(v.x, 0.25),
    ),
    "threshold_int": (
        lambda mb, v: mb.threshold(x=v.n, alpha=np.int32(2)),
        lambda v: np.maximum(v.n, 2),
    ),
}

ACTIVATIONS: dict[str, Case] = {
    "clamped_relu": (
        lambda mb, v: mb.clamped_relu(x=v.x, alpha=scalar(v.x, 0.25), beta=scalar(v.x, 1.5)),
        lambda v: np.minimum(1.5, np.where(v.x >= 0, v.x, 0.25 * v.x)),
    ),
    "elu": (
        lambda mb, v: mb.elu(x=v.x, alpha=scalar(v.x, 0.5)),
        lambda v: np.where(v.x > 0, v.x, 0.5 * np.expm1(v.x)),
    ),
    "gelu": (lambda mb, v: mb.gelu(x=v.x), lambda v: 0.5 * v.x * (1 + _erf(v.x / math.sqrt(2)))),
    "gelu_tanh": (
        lambda mb, v: mb.gelu(x=v.x, mode="TANH_APPROXIMATION"),
        lambda v: 0.5 * v.x * (1 + np.tanh(math.sqrt(2 / math.pi) * (v.x + 0.044715 * v.x**3))),
    ),
    "gelu_sigmoid": (
        lambda mb, v: mb.gelu(x=v.x, mode="SIGMOID_APPROXIMATION"),
        lambda v: v.x * _sigmoid(1.702 * v.x),
    ),
    "leaky_relu": (
        lambda mb, v: mb.leaky_relu(x=v.x, alpha=scalar(v.x, 0.125)),
        lambda v: np.where(v.x >= 0, v.x, 0.125 * v.x),
    ),
    "linear_activation": (
        lambda mb, v: mb.linear_activation(x=v.x, alpha=scalar(v.x, 3), beta=scalar(v.x, -1)),
        lambda v: 3 * v.x - 1,
    ),
    "prelu": (
        lambda mb, v: mb.prelu(x=v.x, alpha=like(v.x, ALPHA)),
        lambda v: np.where(v.x > 0, v.x, _channels(ALPHA) * v.x),
    ),
    "relu": (lambda mb, v: mb.relu(x=v.x), lambda v: np.maximum(v.x, 0)),
    "relu6": (
        lambda mb, v: mb.relu6(x=mb.mul(x=v.x, y=scalar(v.x, 4))),
        lambda v: np.clip(4 * v.x, 0, 6),
    ),
    "scaled_tanh": (
        lambda mb, v: mb.scaled_tanh(x=v.x, alpha=scalar(v.x, 2), beta=scalar(v.x, 0.5)),
        lambda v: 2 * np.tanh(0.5 * v.x),
    ),
    "sigmoid": (lambda mb, v: mb.sigmoid(x=v.x), lambda v: _sigmoid(v.x)),
    "sigmoid_hard": (
        lambda mb, v: mb.sigmoid_hard(x=v.x, alpha=scalar(v.x, 0.25), beta=scalar(v.x, 0.5)),
        lambda v: np.clip(0.25 * v.x + 0.5, 0, 1),
    ),
    "silu": (lambda mb, v: mb.silu(x=v.x), lambda v: v.x * _sigmoid(v.x)),
    "softmax": (
        lambda mb, v: mb.softmax(x=v.x),
        lambda v: np.exp(v.x) / np.exp(v.x).sum(-1, keepdims=True),
    ),
    "softmax_axis": (
        lambda mb, v: mb.softmax(x=v.x, axis=1),
        lambda v: np.exp(v.x) / np.exp(v.x).sum(1, keepdims=True),
    ),
    "softplus": (lambda mb, v: mb.softplus(x=v.x), lambda v: _softplus(v.x)),
    "softplus_parametric": (
        lambda mb, v: mb.softplus_parametric(x=v.x, alpha=like(v.x, ALPHA), beta=like(v.x, BETA)),
        lambda v: _channels(ALPHA) * _softplus(_channels(BETA) * v.x),
    ),
    "softsign": (lambda mb, v: mb.softsign(x=v.x), lambda v: v.x / (1 + np.abs(v.x))),
    "thresholded_relu": (
        lambda mb, v: mb.thresholded_relu(x=v.x, alpha=scalar(v.x, 0.5)),
        lambda v: np.where(v.x >= 0.5, v.x, 0),
    ),
}


def _truth(mb: Any, x: Any) -> Any:
    return mb.cast(x=x, dtype="bool")


BINARY: dict[str, Case] = {
    "add": (lambda mb, v: mb.add(x=v.x, y=v.y), lambda v: v.x + v.y),
    "add_int": (lambda mb, v: mb.add(x=v.n, y=v.m), lambda v: v.n + v.m),
    "add_spread": (
        lambda mb, v: mb.add(x=v.x, y=like(v.x, ALPHA[:, None, None])),
        lambda v: v.x + _channels(ALPHA),
    ),
    "equal": (lambda mb, v: mb.equal(x=v.n, y=v.m), lambda v: v.n == v.m),
    "floor_div": (lambda mb, v: mb.floor_div(x=v.x, y=v.y), lambda v: np.floor(v.x / v.y)),
    "floor_div_int": (lambda mb, v: mb.floor_div(x=v.n, y=v.m), lambda v: v.n // v.m),
    "greater": (lambda mb, v: mb.greater(x=v.x, y=v.y), lambda v: v.x > v.y),
    "greater_equal": (lambda mb, v: mb.greater_equal(x=v.n, y=v.m), lambda v: v.n >= v.m),
    "less": (lambda mb, v: mb.less(x=v.n, y=v.m), lambda v: v.n < v.m),
    "less_equal": (lambda mb, v: mb.less_equal(x=v.n, y=v.m), lambda v: v.n <= v.m),
    "logical_and": (
        lambda mb, v: mb.logical_and(x=_truth(mb, v.t), y=mb.greater(x=v.n, y=0)),
        lambda v: (v.t != 0) & (v.n > 0),
    ),
    "logical_or": (
        lambda mb, v: mb.logical_or(x=_truth(mb, v.t), y=mb.greater(x=v.n, y=0)),
        lambda v: (v.t != 0) | (v.n > 0),
    ),
    "logical_xor": (
        lambda mb, v: mb.logical_xor(x=_truth(mb, v.t), y=mb.greater(x=v.n, y=0)),
        lambda v: (v.t != 0) ^ (v.n > 0),
    ),
    "maximum": (lambda mb, v: mb.maximum(x=v.x, y=v.y), lambda v: np.maximum(v.x, v.y)),
    "minimum": (lambda mb, v: mb.minimum(x=v.x, y=v.y), lambda v: np.minimum(v.x, v.y)),
    "mod": (lambda mb, v: mb.mod(x=v.n, y=v.m), lambda v: v.n % v.m),
    "mul": (lambda mb, v: mb.mul(x=v.x, y=v.y), lambda v: v.x * v.y),
    "not_equal": (lambda mb, v: mb.not_equal(x=v.n, y=v.m), lambda v: v.n != v.m),
    "pow": (lambda mb, v: mb.pow(x=v.y, y=v.u), lambda v: v.y**v.u),
    "real_div": (lambda mb, v: mb.real_div(x=v.x, y=v.y), lambda v: v.x / v.y),
    "sub": (lambda mb, v: mb.sub(x=v.x, y=v.y), lambda v: v.x - v.y),
    "select": (
        lambda mb, v: mb.select(cond=mb.greater(x=v.x, y=v.u), a=v.x, b=v.y),
        lambda v: np.where(v.x > v.u, v.x, v.y),
    ),
}


def _saturated(x: NDArray[Any], dtype: str) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    return np.clip(np.trunc(x), limits.min, limits.max).astype(np.int64)


CASTS: dict[str, Case] = {
    **{
        f"cast_{dtype}": (
            lambda mb, v, d=dtype: mb.cast(x=mb.mul(x=v.x, y=scalar(v.x, 64)), dtype=d),
            lambda v, d=dtype: _saturated(64 * v.x, d),
        )
        for dtype in ("int8", "uint8", "int16", "int32")
    },
    "cast_uint16": (
        lambda mb, v: mb.cast(x=mb.mul(x=v.y, y=scalar(v.y, 128)), dtype="uint16"),
        lambda v: np.trunc(128 * v.y).astype(np.int64),
    ),
    "cast_bool": (lambda mb, v: mb.cast(x=v.n, dtype="bool"), lambda v: v.n != 0),
    "cast_float": (
        lambda mb, v: mb.cast(x=mb.cast(x=v.n, dtype="fp16"), dtype="fp32"),
        lambda v: v.n.astype(np.float32),
    ),
    "quantize": (
        lambda mb, v: mb.quantize(
            input=v.x, scale=scalar(v.x, 0.0625), zero_point=np.uint8(40), output_dtype="uint8"
        ),
        lambda v: np.clip(np.rint(v.x / 0.0625) + 40, 0, 255),
    ),
    "quantize_axis": (
        lambda mb, v: mb.quantize(
            input=v.x, scale=like(v.x, BETA / 64), axis=1, output_dtype="int8"
        ),
        lambda v: np.clip(np.rint(v.x / halved(_channels(BETA / 64))), -128, 127),
    ),
    "dequantize": (
        lambda mb, v: mb.dequantize(
            input=mb.cast(x=v.n, dtype="int8"),
            scale=like(v.x, np.arange(1, 9) / 8),
            zero_point=np.arange(-4, 4).astype(np.int8),
            axis=1,
        ),
        lambda v: (v.n - np.arange(-4, 4)) * np.arange(1, 9) / 8,
    ),
}


def halved(x: NDArray[Any]) -> NDArray[Any]:
    """Return numbers rounded to float16."""
    return x.astype(np.float16).astype(np.float32)


def _reduction(name: str, answer: Callable[..., Any]) -> dict[str, Case]:
    """Return a reduction over two axes, over all, and of whole numbers."""
    return {
        f"{name}_axes": (
            lambda mb, v: getattr(mb, name)(x=v.y, axes=[1, -1], keep_dims=True),
            lambda v: answer(v.y, axis=(1, -1), keepdims=True),
        ),
        f"{name}_all": (lambda mb, v: getattr(mb, name)(x=v.y), lambda v: answer(v.y)),
    }


REDUCTIONS: dict[str, Case] = {
    **_reduction("reduce_l1_norm", lambda x, **o: np.abs(x).sum(**o)),
    **_reduction("reduce_l2_norm", lambda x, **o: np.sqrt((x**2).sum(**o))),
    **_reduction("reduce_log_sum", lambda x, **o: np.log(x.sum(**o))),
    **_reduction("reduce_log_sum_exp", lambda x, **o: np.log(np.exp(x).sum(**o))),
    **_reduction("reduce_max", np.max),
    **_reduction("reduce_mean", np.mean),
    **_reduction("reduce_min", np.min),
    **_reduction("reduce_sum", np.sum),
    **_reduction("reduce_sum_square", lambda x, **o: (x**2).sum(**o)),
    "reduce_prod": (
        lambda mb, v: mb.reduce_prod(x=v.y, axes=[1]),
        lambda v: np.prod(v.y, axis=1),
    ),
    "reduce_sum_int": (lambda mb, v: mb.reduce_sum(x=v.n, axes=[0]), lambda v: v.n.sum(0)),
    "reduce_max_int": (
        lambda mb, v: mb.reduce_max(x=v.n, axes=[1], keep_dims=True),
        lambda v: v.n.max(1, keepdims=True),
    ),
    "reduce_argmax": (lambda mb, v: mb.reduce_argmax(x=v.x, axis=1), lambda v: v.x.argmax(1)),
    "reduce_argmin": (
        lambda mb, v: mb.reduce_argmin(x=v.x, keep_dims=True, output_dtype="uint16"),
        lambda v: v.x.argmin(-1, keepdims=True),
    ),
    "cumsum": (lambda mb, v: mb.cumsum(x=v.n), lambda v: v.n.cumsum(0)),
    "cumsum_exclusive": (
        lambda mb, v: mb.cumsum(x=v.x, axis=3, exclusive=True),
        lambda v: np.pad(v.x.cumsum(3), ((0, 0),) * 3 + ((1, 0),))[..., :-1],
    ),
    "cumsum_reverse": (
        lambda mb, v: mb.cumsum(x=v.n, axis=1, reverse=True),
        lambda v: v.n[:, ::-1].cumsum(1)[:, ::-1],
    ),
    "argsort": (lambda mb, v: mb.argsort(x=v.x), lambda v: np.argsort(-v.x, -1, kind="stable")),
    "argsort_ascending": (
        lambda mb, v: mb.argsort(x=v.x, axis=1, ascending=True),
        lambda v: np.argsort(v.x, 1, kind="stable"),
    ),
    "topk": (
        lambda mb, v: mb.topk(x=v.x, k=3, axis=2),
        lambda v: (
            -np.sort(-v.x, axis=2)[:, :, :3],
            np.argsort(-v.x, axis=2, kind="stable")[:, :, :3],
        ),
    ),
    "topk_values": (
        lambda mb, v: mb.topk(x=v.x, k=2, ascending=True, return_indices=False),
        lambda v: np.sort(v.x, axis=-1)[..., :2],
    ),
}

GAMMA = halves(6, 8)


def _normal(x: NDArray[Any], axes: tuple[int, ...], epsilon: float) -> NDArray[Any]:
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + epsilon)


NORMALISATIONS: dict[str, Case] = {
    "batch_norm": (
        lambda mb, v: mb.batch_norm(
            x=v.x,
            mean=like(v.x, ALPHA),
            variance=like(v.x, BETA),
            gamma=like(v.x, BETA),
            beta=like(v.x, ALPHA),
            epsilon=scalar(v.x, 0.5),
        ),
        lambda v: (
            _channels(BETA) * (v.x - _channels(ALPHA)) / np.sqrt(_channels(BETA) + 0.5)
            + _channels(ALPHA)
        ),
    ),
    "batch_norm_plain": (
        lambda mb, v: mb.batch_norm(x=v.x, mean=like(v.x, ALPHA), variance=like(v.x, BETA)),
        lambda v: (v.x - _channels(ALPHA)) / np.sqrt(_channels(BETA) + 1e-5),
    ),
    "instance_norm": (
        lambda mb, v: mb.instance_norm(
            x=v.x,
            gamma=like(v.x, BETA),
            beta=like(v.x, ALPHA),
            epsilon=scalar(v.x, 0.25),
        ),
        lambda v: _normal(v.x, (2, 3), 0.25) * _channels(BETA) + _channels(ALPHA),
    ),
    "layer_norm": (
        lambda mb, v: mb.layer_norm(
            x=v.x, axes=[2, 3], gamma=like(v.x, GAMMA), beta=like(v.x, GAMMA / 2)
        ),
        lambda v: _normal(v.x, (2, 3), 1e-5) * GAMMA + GAMMA / 2,
    ),
    "layer_norm_inner": (
        lambda mb, v: mb.layer_norm(
            x=v.x,
            axes=[1],
            gamma=like(v.x, BETA),
            beta=like(v.x, ALPHA),
            epsilon=scalar(v.x, 0.125),
        ),
        lambda v: _normal(v.x, (1,), 0.125) * _channels(BETA) + _channels(ALPHA),
    ),
    "layer_norm_all": (
        lambda mb, v: mb.layer_norm(x=v.x, axes=[0, 1, 2, 3]),
        lambda v: _normal(v.x, (0, 1, 2, 3), 1e-5),
    ),
    "l2_norm": (
        lambda mb, v: mb.l2_norm(x=v.x),
        lambda v: v.x / np.sqrt((v.x**2).sum((1, 2, 3), keepdims=True) + 1e-6),
    ),
    "local_response_norm": (
        lambda mb, v: mb.local_response_norm(
            x=v.x, size=3, alpha=scalar(v.x, 0.5), beta=scalar(v.x, 0.75), k=scalar(v.x, 2)
        ),
        lambda v: (
            v.x
            / (
                2
                + 0.5
                / 3
                * sum(
                    np.pad(v.x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, i : i + 4] for i in range(3)
                )
            )
            ** 0.75
        ),
    ),
}

ARITHMETIC: dict[str, Case] = {
    **UNARY,
    **ACTIVATIONS,
    **BINARY,
    **CASTS,
    **REDUCTIONS,
    **NORMALISATIONS,
}
