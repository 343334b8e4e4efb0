"""Operations over height and width: pooling, resizing, exchanges of channels for resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.checker.arguments import Arguments
from mvsdk_export.checker.operations.linear import pad_space, padding_of

_POOLS = {1: (F.avg_pool1d, F.max_pool1d), 2: (F.avg_pool2d, F.max_pool2d)}


def _pool(a: Arguments, *, largest: bool) -> Tensor:
    x, kernel = a.tensor(), a.ints("kernel_sizes")
    axes = len(kernel)
    strides = a.ints("strides", [1] * axes)
    if a.bool("ceil_mode"):
        raise ValueError("ceil_mode is not known here")
    pads = padding_of(a, list(x.shape[2:]), kernel, strides, [1] * axes)
    average, maximum = _POOLS[axes]
    if largest:
        return maximum(pad_space(x, pads, -torch.inf), kernel, strides)
    found = average(pad_space(x, pads), kernel, strides)
    if not a.bool("exclude_padding_from_average"):
        return found
    return found / average(pad_space(torch.ones_like(x), pads), kernel, strides)


def _upsample_nearest(a: Arguments) -> Tensor:
    x = a.tensor()
    sizes = (
        round(x.shape[2] * a.float("scale_factor_height", 1.0)),
        round(x.shape[3] * a.float("scale_factor_width", 1.0)),
    )
    return F.interpolate(x, sizes, mode="nearest")


def _upsample_bilinear(a: Arguments) -> Tensor:
    x = a.tensor()
    sizes = (
        int(x.shape[2] * a.float("scale_factor_height", 1.0)),
        int(x.shape[3] * a.float("scale_factor_width", 1.0)),
    )
    return F.interpolate(x, sizes, mode="bilinear", align_corners=a.bool("align_corners", True))


def _resize_nearest(a: Arguments) -> Tensor:
    sizes = (a.int("target_size_height"), a.int("target_size_width"))
    return F.interpolate(a.tensor(), sizes, mode="nearest")


def _resize_bilinear(a: Arguments) -> Tensor:
    sizes = (a.int("target_size_height"), a.int("target_size_width"))
    mode = a.text("sampling_mode", "DEFAULT")
    aligned = {"STRICT_ALIGN_CORNERS": True, "ALIGN_CORNERS": True, "UNALIGN_CORNERS": False}
    if mode not in aligned:
        raise ValueError(f"the sampling mode {mode} is not known here")
    return F.interpolate(a.tensor(), sizes, mode="bilinear", align_corners=aligned[mode])


def _depth_to_space(a: Arguments) -> Tensor:
    x, block = a.tensor(), a.int("block_size")
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(a: Arguments) -> Tensor:
    x, block = a.tensor(), a.int("block_size")
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


SPATIAL: Mapping[str, Callable[[Arguments], Tensor]] = {
    "avg_pool": lambda a: _pool(a, largest=False),
    "depth_to_space": _depth_to_space,
    "max_pool": lambda a: _pool(a, largest=True),
    "pixel_shuffle": lambda a: F.pixel_shuffle(a.tensor(), a.int("upscale_factor")),
    "pixel_unshuffle": lambda a: F.pixel_unshuffle(a.tensor(), a.int("downscale_factor")),
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest,
    "space_to_depth": _space_to_depth,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
