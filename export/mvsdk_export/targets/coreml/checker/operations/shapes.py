"""Operations that change the order or the axes of values, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function, Ints, Tensors


def _reshape(x: Tensor, shape: Ints) -> Tensor:
    """Change sizes: 0 stands for the size that is there, counted from the last axis."""
    sizes = list(shape)
    for back in range(1, len(sizes) + 1):
        if sizes[-back] == 0 and x.numel():
            sizes[-back] = x.shape[-back] if back <= x.ndim else 1
    return x.reshape(sizes)


def _transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


def _expand_dims(x: Tensor, axes: Ints) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Drop axes of one element; others stay."""
    return x.squeeze() if axes is None else x.squeeze(axes)


def _flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    split = axis % x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:split]), -1)


def _concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """Join along an axis; interleaved: first of each, second of each, and so on."""
    if not interleave:
        return torch.cat(values, dim=axis)
    place = axis % values[0].ndim
    return torch.stack(values, dim=place + 1).flatten(place, place + 1)


def _stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(values, dim=axis)


def _split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return x.split(list(split_sizes), dim=axis)
    if not num_splits or x.shape[axis] % num_splits:
        raise ValueError(f"{num_splits} parts of an axis of {x.shape[axis]}")
    return x.split(x.shape[axis] // num_splits, dim=axis)


def _reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    return x.flip(tuple(range(x.ndim)) if axes is None else axes)


def _sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    place = axis % x.ndim
    return x.unfold(place, size, stride).movedim(-1, place + 1)


# --- between channels and places ------------------------------------------------------------------


def _pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Move channels to places, as PyTorch: the channel of the result is the outermost."""
    return torch.pixel_shuffle(x, upscale_factor)


def _pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return torch.pixel_unshuffle(x, downscale_factor)


def _depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """Move channels to places, as TensorFlow: the channel of the result is the innermost."""
    n, c, h, w = x.shape
    b = block_size
    x = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(x: Tensor, block_size: int) -> Tensor:
    n, c, h, w = x.shape
    b = block_size
    x = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * b * b, h // b, w // b)


SHAPES: Mapping[str, Function] = {
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "flatten2d": _flatten2d,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "reshape": _reshape,
    "reverse": _reverse,
    "sliding_windows": _sliding_windows,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "transpose": _transpose,
}
