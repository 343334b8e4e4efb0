"""Windows over places: pooling, padding, and blocks moved between places and the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function, Ints
from mvsdk_export.targets.coreml.checker.operations.linear import PadType, pad_space, padding_of
from mvsdk_export.targets.coreml.checker.operations.making import check_elements

_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: PadType,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    rank = x.ndim - 2
    strides = strides or (1,) * rank
    pool = _AVG_POOL[rank]
    padding = padding_of(pad_type, pad, tuple(x.shape[2:]), kernel_sizes, strides, (1,) * rank)
    if ceil_mode:  # padding is even then, and PyTorch's rule for the last window needs to know it
        return pool(
            x,
            kernel_sizes,
            strides,
            [before for before, _ in padding],
            ceil_mode=True,
            count_include_pad=not exclude_padding_from_average,
        )
    mean = pool(pad_space(x, padding), kernel_sizes, strides)
    if exclude_padding_from_average:
        mean = mean / pool(pad_space(torch.ones_like(x[:1, :1]), padding), kernel_sizes, strides)
    return mean


def _max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: PadType,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    rank = x.ndim - 2
    strides = strides or (1,) * rank
    padding = padding_of(pad_type, pad, tuple(x.shape[2:]), kernel_sizes, strides, (1,) * rank)
    if ceil_mode:
        inside = [before for before, _ in padding]
        return _MAX_POOL[rank](x, kernel_sizes, strides, inside, ceil_mode=True)
    return _MAX_POOL[rank](pad_space(x, padding, -math.inf), kernel_sizes, strides)


def _pad(
    x: Tensor,
    pad: Ints,
    mode: Literal["constant", "reflect", "replicate"] = "constant",
    constant_val: Tensor | None = None,
) -> Tensor:
    """Pad the last axes, as many as there are pairs in `pad`."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if len(pairs) > x.ndim or min(pad, default=0) < 0:
        raise ValueError(f"padding of {pad} for {x.ndim} axes")
    first = x.ndim - len(pairs)
    sizes = [size + sum(pair) for size, pair in zip(x.shape[first:], pairs, strict=True)]
    check_elements([*x.shape[:first], *sizes])
    if mode == "constant":
        value = 0 if constant_val is None else constant_val.item()
        return F.pad(x, [size for pair in reversed(pairs) for size in pair], value=value)
    for axis, (before, after) in enumerate(pairs, start=first):
        if before or after:
            x = x.index_select(axis, _mirrored(x.shape[axis], before, after, mode))
    return x


def _mirrored(size: int, before: int, after: int, mode: str) -> Tensor:
    """Return which place of an axis each place of the padded one shows."""
    places = torch.arange(-before, size + after)
    if mode == "replicate":
        return places.clamp(0, size - 1)
    if max(before, after) >= size:
        raise ValueError(f"reflection of {before} and {after} places of {size}")
    places = places.abs()
    return torch.where(places >= size, 2 * (size - 1) - places, places)


def _space_to_batch(x: Tensor, block_shape: Ints, paddings: Ints) -> Tensor:
    """Move places of a block to the batch, the place in the block outermost."""
    top, bottom, left, right = paddings
    x = pad_space(x, [(top, bottom), (left, right)])
    n, c, h, w = x.shape
    rows, columns = block_shape
    x = x.reshape(n, c, h // rows, rows, w // columns, columns).permute(3, 5, 0, 1, 2, 4)
    return x.reshape(n * rows * columns, c, h // rows, w // columns)


def _batch_to_space(x: Tensor, block_shape: Ints, crops: Ints) -> Tensor:
    rows, columns = block_shape
    n, c, h, w = x.shape
    x = x.reshape(rows, columns, n // (rows * columns), c, h, w).permute(2, 3, 4, 0, 5, 1)
    x = x.reshape(n // (rows * columns), c, h * rows, w * columns)
    top, bottom, left, right = crops
    return x[:, :, top : h * rows - bottom, left : w * columns - right]


SPATIAL: Mapping[str, Function] = {
    "avg_pool": _avg_pool,
    "batch_to_space": _batch_to_space,
    "max_pool": _max_pool,
    "pad": _pad,
    "space_to_batch": _space_to_batch,
}
