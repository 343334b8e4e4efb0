"""More cases, of operations that look at the neighbours of a value: windows and resizing.

See `mil_cases`, which has the inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mil_cases import Case, scalar
from numpy.typing import NDArray

WINDOWS: dict[str, Case] = {
    "avg_pool": (
        lambda mb, v: mb.avg_pool(x=v.x, kernel_sizes=[2, 3], strides=[2, 2], pad_type="valid"),
        lambda v: F.avg_pool2d(tensor(v.x), (2, 3), 2),
    ),
    "avg_pool_padded": (
        lambda mb, v: mb.avg_pool(x=v.x, kernel_sizes=[3, 3], pad_type="custom", pad=[1, 1, 1, 1]),
        lambda v: F.avg_pool2d(tensor(v.x), 3, 1, 1),
    ),
    "avg_pool_excluding": (
        lambda mb, v: mb.avg_pool(
            x=v.x,
            kernel_sizes=[3, 3],
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            exclude_padding_from_average=True,
        ),
        lambda v: F.avg_pool2d(tensor(v.x), 3, 2, 1, count_include_pad=False),
    ),
    "avg_pool_ceil": (
        lambda mb, v: mb.avg_pool(
            x=v.x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid", ceil_mode=True
        ),
        lambda v: F.avg_pool2d(tensor(v.x), 3, 2, ceil_mode=True),
    ),
    "avg_pool_same": (
        lambda mb, v: mb.avg_pool(
            x=v.x,
            kernel_sizes=[2, 2],
            pad_type="same",
            exclude_padding_from_average=True,
        ),
        lambda v: edge_means(v.x),
    ),
    "max_pool": (
        lambda mb, v: mb.max_pool(x=v.x, kernel_sizes=[3, 2], strides=[1, 2], pad_type="valid"),
        lambda v: F.max_pool2d(tensor(v.x), (3, 2), (1, 2)),
    ),
    "max_pool_padded": (
        lambda mb, v: mb.max_pool(
            x=mb.sub(x=v.x, y=scalar(v.x, 9)),
            kernel_sizes=[3, 3],
            strides=[2, 2],
            pad_type="custom",
            pad=[1, 1, 1, 1],
        ),
        lambda v: F.max_pool2d(tensor(v.x) - 9, 3, 2, 1),
    ),
    "max_pool_1d": (
        lambda mb, v: mb.max_pool(
            x=mb.reshape(x=v.x, shape=[2, 4, 48]), kernel_sizes=[5], strides=[4], pad_type="valid"
        ),
        lambda v: F.max_pool1d(tensor(v.x).reshape(2, 4, 48), 5, 4),
    ),
    "pad": (
        lambda mb, v: mb.pad(x=v.x, pad=[1, 0, 2, 3], constant_val=scalar(v.x, 4)),
        lambda v: np.pad(v.x, ((0, 0), (0, 0), (1, 0), (2, 3)), constant_values=4),
    ),
    "pad_zeros": (
        lambda mb, v: mb.pad(x=v.x, pad=[1, 0, 0, 2, 0, 0, 0, 0]),
        lambda v: np.pad(v.x, ((1, 0), (0, 2), (0, 0), (0, 0))),
    ),
    "pad_reflect": (
        lambda mb, v: mb.pad(x=v.x, pad=[2, 1, 0, 3], mode="reflect"),
        lambda v: np.pad(v.x, ((0, 0), (0, 0), (2, 1), (0, 3)), "reflect"),
    ),
    "pad_replicate": (
        lambda mb, v: mb.pad(x=v.x, pad=[1, 2, 3, 0], mode="replicate"),
        lambda v: np.pad(v.x, ((0, 0), (0, 0), (1, 2), (3, 0)), "edge"),
    ),
}


def edge_means(x: NDArray[Any]) -> NDArray[Any]:
    """Return means over 2 x 2 places, fewer at the far edges."""
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    count = np.pad(np.ones_like(x), ((0, 0), (0, 0), (0, 1), (0, 1)))
    total, places = (
        sum(a[:, :, i : i + 6, j : j + 8] for i in range(2) for j in range(2))
        for a in (padded, count)
    )
    return total / places


def tensor(x: NDArray[Any]) -> torch.Tensor:
    """Return a tensor of an array."""
    return torch.from_numpy(x)


def read_at(x: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    """Return values between places of the last two axes."""
    for axis, points in ((2, rows), (3, columns)):
        points = np.clip(points, 0, x.shape[axis] - 1)
        low = np.floor(points).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = (points - low).reshape(-1, *[1] * (3 - axis))
        x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
    return x


RESIZED: dict[str, Case] = {
    "upsample_nearest_neighbor": (
        lambda mb, v: mb.upsample_nearest_neighbor(
            x=v.x, scale_factor_height=2, scale_factor_width=3
        ),
        lambda v: v.x.repeat(2, 2).repeat(3, 3),
    ),
    "resize_nearest_neighbor": (
        lambda mb, v: mb.resize_nearest_neighbor(x=v.x, target_size_height=9, target_size_width=4),
        lambda v: F.interpolate(tensor(v.x), (9, 4), mode="nearest"),
    ),
    "upsample_bilinear": (
        lambda mb, v: mb.upsample_bilinear(x=v.x, scale_factor_height=2, scale_factor_width=3),
        lambda v: F.interpolate(tensor(v.x), (12, 24), mode="bilinear", align_corners=True),
    ),
    "upsample_bilinear_centers": (
        lambda mb, v: mb.upsample_bilinear(
            x=v.x, scale_factor_height=2, scale_factor_width=3, align_corners=False
        ),
        lambda v: F.interpolate(tensor(v.x), (12, 24), mode="bilinear"),
    ),
    "resize_bilinear": (
        lambda mb, v: mb.resize_bilinear(x=v.x, target_size_height=4, target_size_width=12),
        lambda v: read_at(v.x, np.arange(4) * 1.5, np.arange(12) * 8 / 12),
    ),
    "resize_bilinear_strict": (
        lambda mb, v: mb.resize_bilinear(
            x=v.x,
            target_size_height=1,
            target_size_width=5,
            sampling_mode="STRICT_ALIGN_CORNERS",
        ),
        lambda v: read_at(v.x, np.zeros(1), np.arange(5) * 7 / 4),
    ),
    "resize_bilinear_aligned": (
        lambda mb, v: mb.resize_bilinear(
            x=v.x, target_size_height=1, target_size_width=5, sampling_mode="ALIGN_CORNERS"
        ),
        lambda v: read_at(v.x, np.array([2.5]), np.arange(5) * 7 / 4),
    ),
    "resize_bilinear_unaligned": (
        lambda mb, v: mb.resize_bilinear(
            x=v.x, target_size_height=3, target_size_width=20, sampling_mode="UNALIGN_CORNERS"
        ),
        lambda v: read_at(v.x, np.arange(3) * 2 + 0.5, (np.arange(20) + 0.5) * 0.4 - 0.5),
    ),
    "resize_bilinear_offset": (
        lambda mb, v: mb.resize_bilinear(
            x=v.x, target_size_height=5, target_size_width=8, sampling_mode="OFFSET_CORNERS"
        ),
        lambda v: read_at(v.x, np.arange(5) + 0.5, (np.arange(8) + 0.5) * 7 / 8),
    ),
    "resize": (
        lambda mb, v: mb.resize(
            x=v.x,
            shape=[12, 0],
            resized_dims=np.uint32(2),
            sampling_mode="UNALIGN_CORNERS",
        ),
        lambda v: F.interpolate(tensor(v.x), (12, 8), mode="bilinear"),
    ),
}

NEIGHBOURS: dict[str, Case] = {**WINDOWS, **RESIZED}
