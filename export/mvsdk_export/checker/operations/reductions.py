"""Reductions over axes, and normalisations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.checker.arguments import Arguments


def _reduction(
    function: Callable[[Tensor, list[int], bool], Tensor],
) -> Callable[[Arguments], Tensor]:
    def run(a: Arguments) -> Tensor:
        x = a.tensor()
        axes = a.ints("axes", list(range(x.dim())))
        return function(x, axes, a.bool("keep_dims"))

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(dim=axis, keepdim=keep)
    return x


def _argument(function: Callable[..., Tensor]) -> Callable[[Arguments], Tensor]:
    return lambda a: function(a.tensor(), dim=a.int("axis", -1), keepdim=a.bool("keep_dims"))


def _softmax(a: Arguments) -> Tensor:
    return a.tensor().softmax(dim=a.int("axis", -1))


def _layer_norm(a: Arguments) -> Tensor:
    x = a.tensor()
    axes = sorted(axis % x.dim() for axis in a.ints("axes", list(range(x.dim()))))
    mean = x.mean(dim=axes, keepdim=True)
    variance = (x - mean).square().mean(dim=axes, keepdim=True)
    x = (x - mean) * torch.rsqrt(variance + a.float("epsilon", 1e-5))
    along = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    if a.has("gamma"):
        x = x * a.tensor("gamma").reshape(along)
    if a.has("beta"):
        x = x + a.tensor("beta").reshape(along)
    return x


def _instance_norm(a: Arguments) -> Tensor:
    x = a.tensor()
    weight = a.tensor("gamma") if a.has("gamma") else None
    bias = a.tensor("beta") if a.has("beta") else None
    return F.instance_norm(x, weight=weight, bias=bias, eps=a.float("epsilon", 1e-5))


def _batch_norm(a: Arguments) -> Tensor:
    weight = a.tensor("gamma") if a.has("gamma") else None
    bias = a.tensor("beta") if a.has("beta") else None
    return F.batch_norm(
        a.tensor(),
        a.tensor("mean"),
        a.tensor("variance"),
        weight=weight,
        bias=bias,
        eps=a.float("epsilon", 1e-5),
    )


def _l2_norm(a: Arguments) -> Tensor:
    x = a.tensor()
    axes = [-3, -2, -1][-x.dim() :]
    return x / torch.sqrt(x.square().sum(dim=axes, keepdim=True) + a.float("epsilon", 1e-6))


def _local_response_norm(a: Arguments) -> Tensor:
    return F.local_response_norm(
        a.tensor(),
        a.int("size"),
        alpha=a.float("alpha", 1e-4),
        beta=a.float("beta", 0.75),
        k=a.float("k", 1.0),
    )


def _cumsum(a: Arguments) -> Tensor:
    x, axis = a.tensor(), a.int("axis", 0)
    if a.bool("reverse"):
        x = x.flip(axis)
    summed = x.cumsum(dim=axis)
    if a.bool("exclusive"):
        summed = summed - x
    return summed.flip(axis) if a.bool("reverse") else summed


REDUCTIONS: Mapping[str, Callable[[Arguments], Tensor]] = {
    "batch_norm": _batch_norm,
    "cumsum": _cumsum,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
    "reduce_argmax": _argument(torch.argmax),
    "reduce_argmin": _argument(torch.argmin),
    "reduce_l1_norm": _reduction(lambda x, axes, keep: x.abs().sum(dim=axes, keepdim=keep)),
    "reduce_l2_norm": _reduction(
        lambda x, axes, keep: x.square().sum(dim=axes, keepdim=keep).sqrt()
    ),
    "reduce_log_sum": _reduction(lambda x, axes, keep: x.sum(dim=axes, keepdim=keep).log()),
    "reduce_log_sum_exp": _reduction(
        lambda x, axes, keep: torch.logsumexp(x, dim=axes, keepdim=keep)
    ),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(dim=axes, keepdim=keep)),
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(dim=axes, keepdim=keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(dim=axes, keepdim=keep)),
    "reduce_prod": _reduction(_product),
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(dim=axes, keepdim=keep)),
    "reduce_sum_square": _reduction(lambda x, axes, keep: x.square().sum(dim=axes, keepdim=keep)),
    "softmax": _softmax,
}
