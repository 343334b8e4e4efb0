"""More cases, of convolutions, products of matrices and attention.

See `mil_cases`, which has the inputs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mil_cases import ALPHA, GAMMA, Case, halves, like
from numpy.typing import NDArray

KERNEL, SPREAD = halves(6, 4, 3, 2), halves(4, 3, 3, 2)
DEPTHWISE = halves(4, 1, 3, 3)
MATRIX, BIAS = halves(5, 8), halves(5)


def _tensor(x: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(x)


def _grow(x: NDArray[Any], top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    return F.pad(_tensor(x), (left, right, top, bottom))


def _spread_full(x: NDArray[Any]) -> torch.Tensor:
    """Return what strides of (2, 2) make of a 6 x 8 input: 13 x 16 places."""
    return F.conv_transpose2d(_tensor(x), _tensor(SPREAD), stride=2)


PRODUCTS: dict[str, Case] = {
    "conv_valid": (
        lambda mb, v: mb.conv(x=v.x, weight=like(v.x, KERNEL), strides=[2, 1]),
        lambda v: F.conv2d(_tensor(v.x), _tensor(KERNEL), stride=(2, 1)),
    ),
    "conv_uneven": (
        lambda mb, v: mb.conv(
            x=v.x, weight=like(v.x, KERNEL), pad_type="custom", pad=[0, 2, 1, 0], dilations=[1, 2]
        ),
        lambda v: F.conv2d(_grow(v.x, 0, 2, 1, 0), _tensor(KERNEL), dilation=(1, 2)),
    ),
    "conv_same": (
        lambda mb, v: mb.conv(x=v.x, weight=like(v.x, KERNEL), pad_type="same"),
        lambda v: F.conv2d(_grow(v.x, 1, 1, 0, 1), _tensor(KERNEL)),
    ),
    "conv_same_strided": (
        lambda mb, v: mb.conv(x=v.x, weight=like(v.x, KERNEL), pad_type="same", strides=[4, 3]),
        lambda v: F.conv2d(_grow(v.x, 0, 1, 0, 0), _tensor(KERNEL), stride=(4, 3)),
    ),
    "conv_same_lower": (
        lambda mb, v: mb.conv(x=v.x, weight=like(v.x, KERNEL), pad_type="same_lower"),
        lambda v: F.conv2d(_grow(v.x, 1, 1, 1, 0), _tensor(KERNEL)),
    ),
    "conv_depthwise": (
        lambda mb, v: mb.conv(
            x=v.x,
            weight=like(v.x, DEPTHWISE),
            bias=like(v.x, ALPHA),
            groups=4,
            pad_type="custom",
            pad=[1, 1, 1, 1],
        ),
        lambda v: F.conv2d(_tensor(v.x), _tensor(DEPTHWISE), _tensor(ALPHA), padding=1, groups=4),
    ),
    "conv_computed_weight": (
        lambda mb, v: mb.conv(
            x=v.x, weight=mb.slice_by_size(x=v.y, begin=[0, 0, 0, 0], size=[2, 4, 3, 3])
        ),
        lambda v: F.conv2d(_tensor(v.x), _tensor(v.y[:2, :4, :3, :3])),
    ),
    "conv_1d": (
        lambda mb, v: mb.conv(
            x=mb.reshape(x=v.x, shape=[2, 4, 48]),
            weight=like(v.x, KERNEL[..., 0]),
            bias=like(v.x, GAMMA[:, 0]),
        ),
        lambda v: F.conv1d(
            _tensor(v.x).reshape(2, 4, 48), _tensor(KERNEL[..., 0]), _tensor(GAMMA[:, 0])
        ),
    ),
    "conv_3d": (
        lambda mb, v: mb.conv(
            x=mb.reshape(x=v.x, shape=[2, 4, 3, 2, 8]), weight=like(v.x, KERNEL[..., None])
        ),
        lambda v: F.conv3d(_tensor(v.x).reshape(2, 4, 3, 2, 8), _tensor(KERNEL[..., None])),
    ),
    "conv_transpose_valid": (
        lambda mb, v: mb.conv_transpose(x=v.x, weight=like(v.x, SPREAD), strides=[2, 2]),
        lambda v: _spread_full(v.x),
    ),
    "conv_transpose_custom": (
        lambda mb, v: mb.conv_transpose(
            x=v.x,
            weight=like(v.x, SPREAD),
            bias=like(v.x, ALPHA[:3]),
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 2, 0, 1],
        ),
        lambda v: _spread_full(v.x)[:, :, 1:-2, :-1] + _tensor(ALPHA[:3, None, None]),
    ),
    "conv_transpose_same": (
        lambda mb, v: mb.conv_transpose(
            x=v.x, weight=like(v.x, SPREAD), strides=[2, 2], pad_type="same"
        ),
        lambda v: _spread_full(v.x)[:, :, :12],
    ),
    "conv_transpose_shape": (
        lambda mb, v: mb.conv_transpose(
            x=v.x,
            weight=like(v.x, SPREAD),
            bias=like(v.x, ALPHA[:3]),
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            output_shape=[2, 3, 12, 15],
        ),
        lambda v: F.conv_transpose2d(
            _tensor(v.x),
            _tensor(SPREAD),
            _tensor(ALPHA[:3]),
            stride=2,
            padding=1,
            output_padding=1,
        ),
    ),
    "conv_transpose_grouped": (
        lambda mb, v: mb.conv_transpose(
            x=v.x, weight=like(v.x, SPREAD), groups=2, dilations=[2, 1]
        ),
        lambda v: F.conv_transpose2d(_tensor(v.x), _tensor(SPREAD), groups=2, dilation=(2, 1)),
    ),
    "linear": (
        lambda mb, v: mb.linear(
            x=mb.reshape(x=v.x, shape=[2, 24, 8]), weight=like(v.x, MATRIX), bias=like(v.x, BIAS)
        ),
        lambda v: v.x.reshape(2, 24, 8) @ MATRIX.T + BIAS,
    ),
    "linear_int": (
        lambda mb, v: mb.linear(x=v.n, weight=np.arange(16).astype(np.int32).reshape(2, 8)),
        lambda v: v.n @ np.arange(16).reshape(2, 8).T,
    ),
    "matmul": (
        lambda mb, v: mb.matmul(x=v.x, y=v.y, transpose_y=True),
        lambda v: v.x @ v.y.swapaxes(2, 3),
    ),
    "matmul_transpose_x": (
        lambda mb, v: mb.matmul(x=v.x, y=v.y, transpose_x=True),
        lambda v: v.x.swapaxes(2, 3) @ v.y,
    ),
    "matmul_spread": (
        lambda mb, v: mb.matmul(x=v.x, y=like(v.x, MATRIX), transpose_y=True),
        lambda v: v.x @ MATRIX.T,
    ),
    "matmul_int": (lambda mb, v: mb.matmul(x=v.n, y=v.m, transpose_y=True), lambda v: v.n @ v.m.T),
    "einsum": (
        lambda mb, v: mb.einsum(
            values=(v.x, mb.transpose(x=v.y, perm=[0, 3, 2, 1])), equation="nchw,nwhu->nchu"
        ),
        lambda v: np.einsum("nchw,nuhw->nchu", v.x, v.y),
    ),
    "attention": (
        lambda mb, v: mb.scaled_dot_product_attention(query=v.x, key=v.y, value=v.u),
        lambda v: _attend(v.x, v.y, v.u, np.zeros((6, 6))),
    ),
    "attention_mask": (
        lambda mb, v: mb.scaled_dot_product_attention(
            query=v.x, key=v.y, value=v.u, attn_mask=like(v.x, GAMMA[:, :6])
        ),
        lambda v: _attend(v.x, v.y, v.u, GAMMA[:, :6]),
    ),
    "attention_truths": (
        lambda mb, v: mb.scaled_dot_product_attention(
            query=v.x, key=v.y, value=v.u, attn_mask=np.tri(6) > 0
        ),
        lambda v: _attend(v.x, v.y, v.u, np.where(np.tri(6) > 0, 0, -np.inf)),
    ),
}


def _attend(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    scores = np.exp(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]) + mask)
    return scores / scores.sum(-1, keepdims=True) @ v
