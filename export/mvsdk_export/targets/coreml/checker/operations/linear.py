"""Convolutions, products of matrices, and attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function, Ints, Tensors
from mvsdk_export.targets.coreml.checker.operations.making import check_elements

PadType = Literal["valid", "same", "same_lower", "custom"]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def padding_of(
    pad_type: str, pad: Ints | None, sizes: Ints, kernel: Ints, strides: Ints, dilations: Ints
) -> list[tuple[int, int]]:
    """Return how many places a window adds before and after each axis.

    With `same`, results have `ceil(size / stride)` places; where the sum of what is added is odd,
    one more comes after, or before with `same_lower`.
    """
    rank = len(sizes)
    if pad_type == "custom" and pad is not None:
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad_type in ("valid", "custom"):
        return [(0, 0)] * rank
    found: list[tuple[int, int]] = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        extent = (width - 1) * dilation + 1
        total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        less, more = total // 2, total - total // 2
        found.append((more, less) if pad_type == "same_lower" else (less, more))
    return found


def pad_space(x: Tensor, padding: list[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the axes after the first two."""
    if not any(any(pair) for pair in padding):
        return x
    sizes = [size + sum(pair) for size, pair in zip(x.shape[2:], padding, strict=True)]
    check_elements([*x.shape[:2], *sizes])
    return F.pad(x, [size for pair in reversed(padding) for size in pair], value=value)


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: PadType = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    rank = x.ndim - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    kernel = tuple(weight.shape[2:])
    padding = padding_of(pad_type, pad, tuple(x.shape[2:]), kernel, strides, dilations)
    even = all(before == after >= 0 for before, after in padding)
    inside = [before for before, _ in padding] if even else 0
    x = x if even else pad_space(x, padding)
    return _CONV[rank](x, weight, bias, strides, inside, dilations, groups)


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: Literal["valid", "same", "custom"] = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """Spread every place over a window: the full result, of which `pad` is cut off."""
    rank = x.ndim - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    full = _CONV_TRANSPOSE[rank](x, weight, None, stride=strides, groups=groups, dilation=dilations)
    for axis in range(rank):
        size, whole = x.shape[axis + 2] * strides[axis], full.shape[axis + 2]
        before = after = 0
        if pad_type == "custom" and pad is not None:
            before, after = pad[2 * axis], pad[2 * axis + 1]
        elif pad_type == "same":
            before = max(0, whole - size) // 2
            after = whole - size - before
        if output_shape is not None:
            after = whole - before - output_shape[axis + 2]
        full = _cut(full, axis + 2, before, after)
    return full if bias is None else full + bias.reshape(-1, *[1] * rank)


def _cut(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Take places off both ends of an axis; a negative number adds zeros."""
    padding = [0, 0] * (x.ndim - axis)
    padding[-2:] = [-before, -after]
    return x if before == after == 0 else F.pad(x, padding)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.is_floating_point():
        return F.linear(x, weight, bias)
    product = x @ weight.transpose(0, 1)
    return product if bias is None else product + bias


def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Multiply matrices; a vector is not transposed."""
    x = x.mT if transpose_x and x.ndim > 1 else x
    y = y.mT if transpose_y and y.ndim > 1 else y
    return x @ y


def _einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Return `softmax(q k^T / sqrt(E) + mask) v`; a mask of truths says what takes part."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask)


LINEAR: Mapping[str, Function] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}
