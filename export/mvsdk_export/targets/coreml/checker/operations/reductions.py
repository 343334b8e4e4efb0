"""Reductions along axes, normalisations, and sorting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function, Ints


def _over_axes(compute: Callable[[Tensor, Ints, bool], Tensor]) -> Function:
    """Return a reduction over some axes, all where none are given; whole numbers stay whole."""

    def run(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
        every = tuple(range(x.ndim)) if axes is None else axes
        if x.is_floating_point():
            return compute(x, every, keep_dims)
        return compute(x.double(), every, keep_dims).to(x.dtype)

    return run


def _prod(x: Tensor, axes: Ints, keep: bool) -> Tensor:
    for axis in axes:
        x = x.prod(dim=axis, keepdim=True)
    return x if keep else _drop(x, axes)


def _drop(x: Tensor, axes: Ints) -> Tensor:
    return x.squeeze(tuple(axes)) if axes else x


def _over_axis(compute: Callable[[Tensor, int, bool], Tensor]) -> Function:
    """Return a search along one axis: where the first of the extremes is."""

    def run(
        x: Tensor,
        axis: int = -1,
        keep_dims: bool = False,
        output_dtype: Literal["int32", "uint16"] = "int32",
    ) -> Tensor:
        return compute(x, axis, keep_dims)

    return run


def _cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    x = x.flip(axis) if reverse else x
    total = x.cumsum(axis)
    if exclusive:  # shifted by one, not the value subtracted: that would not be exact
        first = torch.zeros_like(total.narrow(axis, 0, 1))
        total = torch.cat([first, total.narrow(axis, 0, x.shape[axis] - 1)], dim=axis)
    return total.flip(axis) if reverse else total


def _argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True)


def _topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: Literal["int32", "uint16"] = "int32",
) -> tuple[Tensor, ...]:
    """Return the extremes along an axis; always sorted, as MIL allows where `sort` is false."""
    count = x.shape[axis] if k == -1 else k
    order = _argsort(x, axis, ascending).narrow(axis, 0, count)
    values = x.gather(axis, order)
    return (values, order) if return_indices else (values,)


# --- normalisations -------------------------------------------------------------------------------


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)


def _instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """Normalise each channel of each batch entry over its places, with the biased variance."""
    axes = tuple(range(2, x.ndim))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    x = (x - mean) * torch.rsqrt(variance + epsilon)
    x = x if gamma is None else x * _per_channel(gamma, x)
    return x if beta is None else x + _per_channel(beta, x)


def _layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise over axes; `gamma` and `beta` have the sizes of those axes."""
    every = sorted(axis % x.ndim for axis in (range(x.ndim) if axes is None else axes))
    sizes = [x.shape[axis] for axis in every]
    if every == list(range(x.ndim - len(every), x.ndim)):
        return F.layer_norm(x, sizes, gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, every, correction=0, keepdim=True)
    x = (x - mean) * torch.rsqrt(variance + epsilon)
    spread = [size if axis in every else 1 for axis, size in enumerate(x.shape)]
    x = x if gamma is None else x * gamma.reshape(spread)
    return x if beta is None else x + beta.reshape(spread)


def _l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Divide by the length over the last three axes."""
    return x * torch.rsqrt(x.square().sum(dim=(-3, -2, -1), keepdim=True) + epsilon)


def _local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    return F.local_response_norm(x, size, alpha=alpha, beta=beta, k=k)


REDUCTIONS: Mapping[str, Function] = {
    "argsort": _argsort,
    "batch_norm": _batch_norm,
    "cumsum": _cumsum,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
    "reduce_argmax": _over_axis(lambda x, axis, keep: x.argmax(axis, keepdim=keep)),
    "reduce_argmin": _over_axis(lambda x, axis, keep: x.argmin(axis, keepdim=keep)),
    "reduce_l1_norm": _over_axes(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "reduce_l2_norm": _over_axes(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "reduce_log_sum": _over_axes(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "reduce_log_sum_exp": _over_axes(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "reduce_max": _over_axes(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_mean": _over_axes(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "reduce_min": _over_axes(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "reduce_prod": _over_axes(_prod),
    "reduce_sum": _over_axes(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_sum_square": _over_axes(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "topk": _topk,
}
