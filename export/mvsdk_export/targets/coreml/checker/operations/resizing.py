"""Resizing of the last two axes.

Reference:
    coremltools, `resize_bilinear`: which point of the input grid each point of the result reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function, Ints
from mvsdk_export.targets.coreml.checker.operations.making import check_elements

Sampling = Literal[
    "DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "OFFSET_CORNERS"
]


def _grid(size: int, target: int, sampling: str) -> Tensor:
    """Return the points of an axis that are read, as float64 in [0, size - 1]."""
    places = torch.arange(target, dtype=torch.float64)
    if sampling == "UNALIGN_CORNERS":
        points = (places + 0.5) * size / target - 0.5
    elif sampling == "OFFSET_CORNERS":
        points = (places + 0.5) * max(1, size - 1) / target
    elif sampling == "DEFAULT":
        points = places * size / target
    elif target > 1:
        points = places * (size - 1) / (target - 1)
    else:
        points = places + ((size - 1) / 2 if sampling == "ALIGN_CORNERS" else 0.0)
    return points.clamp(0, size - 1)


def _linear(x: Tensor, axis: int, target: int, sampling: str) -> Tensor:
    """Interpolate along an axis."""
    size = x.shape[axis]
    points = _grid(size, target, sampling)
    below = points.floor().to(torch.int64)
    along = [1] * x.ndim
    along[axis] = -1
    share = (points - below).to(x.dtype).reshape(along)
    above = (below + 1).clamp(max=size - 1)
    return x.index_select(axis, below) * (1 - share) + x.index_select(axis, above) * share


def _bilinear(x: Tensor, height: int, width: int, sampling: str) -> Tensor:
    check_elements([*x.shape[:-2], height, width])
    return _linear(_linear(x, x.ndim - 2, height, sampling), x.ndim - 1, width, sampling)


def _nearest(x: Tensor, height: int, width: int) -> Tensor:
    """Take the value at the point of the grid that is at or before each."""
    check_elements([*x.shape[:-2], height, width])
    for axis, target in ((x.ndim - 2, height), (x.ndim - 1, width)):
        places = torch.arange(target) * x.shape[axis] // target
        x = x.index_select(axis, places)
    return x


def _upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    return _nearest(x, *_scaled(x, scale_factor_height, scale_factor_width))


def _resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    return _nearest(x, target_size_height, target_size_width)


def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Interpolate; which points are read follows from the sizes, not from the factors."""
    centers = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centers:
        raise ValueError("corners are aligned and centres of pixels too")
    sampling = (
        "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centers else "DEFAULT"
    )
    return _bilinear(x, *_scaled(x, scale_factor_height, scale_factor_width), sampling)


def _resize_bilinear(
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: Sampling = "DEFAULT",
) -> Tensor:
    return _bilinear(x, target_size_height, target_size_width, sampling_mode)


def _resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: Literal["LINEAR"] = "LINEAR",
    sampling_mode: Sampling = "DEFAULT",
) -> Tensor:
    """Interpolate along the last `resized_dims` axes; a size of 0 stays."""
    for back in range(1, resized_dims + 1):
        target = shape[-back] or x.shape[-back]
        sizes = list(x.shape)
        sizes[-back] = target
        check_elements(sizes)
        x = _linear(x, x.ndim - back, target, sampling_mode)
    return x


def _scaled(x: Tensor, height: float, width: float) -> tuple[int, int]:
    return math.floor(x.shape[-2] * height), math.floor(x.shape[-1] * width)


RESIZING: Mapping[str, Function] = {
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest_neighbor,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest_neighbor,
}
