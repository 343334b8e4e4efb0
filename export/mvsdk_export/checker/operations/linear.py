"""Products: convolutions, linear layers, matrices, attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.checker.arguments import Arguments

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def padding_of(
    a: Arguments, sizes: list[int], kernel: list[int], strides: list[int], dilations: list[int]
) -> list[tuple[int, int]]:
    """Return what is padded before and after each axis of space.

    Args:
        a: Has `pad_type` (valid, same, same_lower, custom) and `pad`.
        sizes: Of the input.
        kernel: Of the kernel.
        strides: Of the kernel.
        dilations: Of the kernel.
    """
    kind = a.text("pad_type", "valid")
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        pad = a.ints("pad", [0] * 2 * len(sizes))
        return list(zip(pad[::2], pad[1::2], strict=True))
    found: list[tuple[int, int]] = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        steps = -(-size // stride)
        total = max(0, (steps - 1) * stride + dilation * (width - 1) + 1 - size)
        less, more = total // 2, total - total // 2
        found.append((more, less) if kind == "same_lower" else (less, more))
    return found


def pad_space(x: Tensor, pads: list[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the axes of space."""
    flat = [amount for pair in reversed(pads) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def _bias(a: Arguments) -> Tensor | None:
    return a.tensor("bias") if a.has("bias") else None


def _conv(a: Arguments) -> Tensor:
    x, weight = a.tensor(), a.tensor("weight")
    axes = x.dim() - 2
    strides, dilations = a.ints("strides", [1] * axes), a.ints("dilations", [1] * axes)
    pads = padding_of(a, list(x.shape[2:]), list(weight.shape[2:]), strides, dilations)
    return _CONVOLUTIONS[axes](
        pad_space(x, pads),
        weight,
        _bias(a),
        stride=strides,
        dilation=dilations,
        groups=a.int("groups", 1),
    )


def _conv_transpose(a: Arguments) -> Tensor:
    x, weight = a.tensor(), a.tensor("weight")
    axes = x.dim() - 2
    strides, dilations = a.ints("strides", [1] * axes), a.ints("dilations", [1] * axes)
    full = _TRANSPOSED[axes](
        x, weight, _bias(a), stride=strides, dilation=dilations, groups=a.int("groups", 1)
    )
    kind = a.text("pad_type", "valid")
    if kind == "custom":
        pad = a.ints("pad", [0] * 2 * axes)
        starts = pad[::2]
        wanted = [n - b - e for n, b, e in zip(full.shape[2:], starts, pad[1::2], strict=True)]
    elif kind == "valid":
        starts, wanted = [0] * axes, list(full.shape[2:])
    else:
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        extra = [n - w for n, w in zip(full.shape[2:], wanted, strict=True)]
        starts = [e - e // 2 if kind == "same_lower" else e // 2 for e in extra]
    if a.has("output_shape"):
        wanted = a.ints("output_shape")[2:]
    for axis, (start, size) in enumerate(zip(starts, wanted, strict=True), start=2):
        missing = start + size - full.shape[axis]
        if missing > 0:
            shape = list(full.shape)
            shape[axis] = missing
            fill = (
                torch.zeros(shape)
                if _bias(a) is None
                else a.tensor("bias").reshape(1, -1, *[1] * axes).expand(shape)
            )
            full = torch.cat([full, fill], dim=axis)
        full = full.narrow(axis, start, size)
    return full


def _linear(a: Arguments) -> Tensor:
    return F.linear(a.tensor(), a.tensor("weight"), _bias(a))


def _matmul(a: Arguments) -> Tensor:
    x, y = a.tensor("x"), a.tensor("y")
    if a.bool("transpose_x"):
        x = x.transpose(-1, -2)
    if a.bool("transpose_y"):
        y = y.transpose(-1, -2)
    if not x.is_floating_point():
        return (x.double() @ y.double()).round().long()
    return x @ y


def _einsum(a: Arguments) -> Tensor:
    return torch.einsum(a.text("equation"), *a.all("values"))


def _attention(a: Arguments) -> Tensor:
    mask = a.tensor("attn_mask") if a.has("attn_mask") else None
    return F.scaled_dot_product_attention(
        a.tensor("query"), a.tensor("key"), a.tensor("value"), attn_mask=mask
    )


LINEAR: Mapping[str, Callable[[Arguments], Tensor]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}
