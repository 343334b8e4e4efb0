"""Narrower heads of self-attention, by thin matrices that are trained and then merged.

Queries and keys of a head meet in one product, W_q^T W_k; values and output in another, W_o W_v.
Nothing stands in between. A *funnel* is a pair of thin matrices inside such a product that takes
its rank from d, the channels of a head, to d' = round(factor d):

    W_q^T W_k  ->  (F_q W_q)^T (F_k W_k)        F_q, F_k: (d', d)
    W_o W_v    ->  (W_o F_o) (F_v W_v)          F_v: (d', d), F_o: (d, d')

While it is trained, a funnel is an adaptor beside the weight that it narrows, and both learn.
Merged, it is part of the weight, and the layer is smaller.

The coupled singular initialisation takes, for each head, the best product of rank d' in Frobenius
norm: the truncated singular value decomposition. What it loses is the tail of the singular values.

Reference:
    Ben Yahia et al. 2024, arXiv:2412.07583 (channel funnels); the initialisation is derived here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mvsdk_export.compress.rebuilding import rebuild
from mvsdk_export.compress.reports import LATENT_SIZE, Fidelity, Report, report_step
from mvsdk_export.errors import CompressionError
from mvsdk_export.networks.svd.unet import SVDUNet, SVDUNetConfig

Init = Literal["csi", "he"]


class _Funnelled(nn.Module):
    """A linear layer and the funnel that narrows it; `merged` is the layer that they make."""

    def __init__(self, layer: nn.Linear, funnel: Tensor, factor: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach())
        self.funnel = nn.Parameter(funnel)
        self.factor = factor

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.merged(), self.bias)

    def merged(self) -> Tensor:
        raise NotImplementedError


class FunnelAfter(_Funnelled):
    """Funnel behind queries, keys or values: `(heads, d', d)` times `(heads * d, C)`."""

    def merged(self) -> Tensor:
        """Return the narrower weight, `(heads * d', C)`."""
        heads, _, before = self.funnel.shape
        rows = self.weight.reshape(heads, before, -1)
        return (self.funnel @ rows).flatten(0, 1)


class FunnelBefore(_Funnelled):
    """Funnel in front of the output layer: `(C, heads * d)` times `(heads, d, d')`."""

    def merged(self) -> Tensor:
        """Return the narrower weight, `(C, heads * d')`."""
        heads, before, _ = self.funnel.shape
        columns = self.weight.reshape(-1, heads, before).transpose(0, 1)  # (heads, C, d)
        return (columns @ self.funnel).transpose(0, 1).flatten(1)


class _Pair(NamedTuple):
    """Funnels of a product `left^T right` of every head, and how well they keep it."""

    left: Tensor
    """`(heads, d', d)`."""
    right: Tensor
    error: float
    norm: float
