"""More cases, of operations that move values or make them.

See `mil_cases`, which has the inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mil_cases import Case, like, scalar
from numpy.typing import NDArray

SHAPES: dict[str, Case] = {
    "reshape": (
        lambda mb, v: mb.reshape(x=v.x, shape=[0, -1, 8]),  # the last three: 0 is the axis of 4
        lambda v: v.x.reshape(4, 12, 8),
    ),
    "reshape_zero_out_of_range": (
        lambda mb, v: mb.reshape(x=v.n, shape=[1, 0, -1, 0]),
        lambda v: v.n.reshape(1, 1, 3, 8),
    ),
    "transpose": (
        lambda mb, v: mb.transpose(x=v.x, perm=[0, -1, 1, 2]),
        lambda v: v.x.transpose(0, 3, 1, 2),
    ),
    "expand_dims": (
        lambda mb, v: mb.expand_dims(x=v.n, axes=[-1, 0, 2]),
        lambda v: v.n.reshape(1, 3, 1, 8, 1),
    ),
    "squeeze": (
        lambda mb, v: mb.squeeze(x=mb.expand_dims(x=v.n, axes=[0, 2, 4])),
        lambda v: v.n,
    ),
    "squeeze_axes": (
        lambda mb, v: mb.squeeze(x=mb.expand_dims(x=v.n, axes=[0, 2]), axes=[-2]),
        lambda v: v.n[None],
    ),
    "flatten2d": (
        lambda mb, v: mb.flatten2d(x=v.x, axis=-1),
        lambda v: v.x.reshape(48, 8),
    ),
    "concat": (
        lambda mb, v: mb.concat(values=(v.x, v.y, like(v.x, np.ones((2, 4, 6, 3)))), axis=-1),
        lambda v: np.concatenate([v.x, v.y, np.ones((2, 4, 6, 3), np.float32)], -1),
    ),
    "concat_interleave": (
        lambda mb, v: mb.concat(values=(v.x, v.y), axis=1, interleave=True),
        lambda v: np.stack([v.x, v.y], 2).reshape(2, 8, 6, 8),
    ),
    "stack": (
        lambda mb, v: mb.stack(values=(v.n, v.m), axis=-1),
        lambda v: np.stack([v.n, v.m], -1),
    ),
    "split": (
        lambda mb, v: mb.split(x=v.x, axis=3, num_splits=4),
        lambda v: np.split(v.x, 4, axis=3),
    ),
    "split_sizes": (
        lambda mb, v: mb.split(x=v.x, axis=-1, split_sizes=[1, 5, 2]),
        lambda v: np.split(v.x, [1, 6], axis=3),
    ),
    "reverse": (lambda mb, v: mb.reverse(x=v.n), lambda v: v.n[::-1, ::-1]),
    "reverse_axes": (lambda mb, v: mb.reverse(x=v.x, axes=[-2]), lambda v: v.x[:, :, ::-1]),
    "sliding_windows": (
        lambda mb, v: mb.sliding_windows(x=v.x, axis=2, size=4, stride=2),
        lambda v: np.stack([v.x[:, :, 0:4], v.x[:, :, 2:6]], 2),
    ),
    "pixel_shuffle": (
        lambda mb, v: mb.pixel_shuffle(x=v.x, upscale_factor=2),
        lambda v: v.x.reshape(2, 1, 2, 2, 6, 8).transpose(0, 1, 4, 2, 5, 3).reshape(2, 1, 12, 16),
    ),
    "pixel_unshuffle": (
        lambda mb, v: mb.pixel_unshuffle(x=v.x, downscale_factor=np.uint32(2)),
        lambda v: v.x.reshape(2, 4, 3, 2, 4, 2).transpose(0, 1, 3, 5, 2, 4).reshape(2, 16, 3, 4),
    ),
    "depth_to_space": (
        lambda mb, v: mb.depth_to_space(x=mb.concat(values=(v.x, v.y), axis=1), block_size=2),
        lambda v: blocks_to_places(np.concatenate([v.x, v.y], 1)),
    ),
    "space_to_depth": (
        lambda mb, v: mb.space_to_depth(x=v.x, block_size=2),
        lambda v: np.concatenate(
            [v.x[:, :, i::2, j::2] for i in range(2) for j in range(2)], axis=1
        ),
    ),
    "space_to_batch": (
        lambda mb, v: mb.space_to_batch(
            x=v.x, block_shape=[2, 3], paddings=np.array([[1, 1], [0, 1]], np.int32)
        ),
        lambda v: np.concatenate(
            [
                np.pad(v.x, ((0, 0), (0, 0), (1, 1), (0, 1)))[:, :, i::2, j::3]
                for i in range(2)
                for j in range(3)
            ]
        ),
    ),
    "batch_to_space": (
        lambda mb, v: mb.batch_to_space(
            x=v.x, block_shape=[2, 1], crops=np.array([[1, 2], [0, 3]], np.int32)
        ),
        lambda v: np.stack(v.x, 2).reshape(1, 4, 12, 8)[:, :, 1:-2, :-3],
    ),
}


def blocks_to_places(x: NDArray[Any]) -> NDArray[Any]:
    """Return what `depth_to_space` of 8 channels makes with blocks of 2."""
    found = np.zeros((2, 2, 12, 16), x.dtype)
    for i in range(2):
        for j in range(2):
            first = 2 * (2 * i + j)
            found[:, :, i::2, j::2] = x[:, first : first + 2]
    return found


SLICES: dict[str, Case] = {
    "slice_by_index": (
        lambda mb, v: mb.slice_by_index(
            x=v.x, begin=[0, 1, -4, 2], end=[1, 4, -1, 8], stride=[1, 2, 1, 3]
        ),
        lambda v: v.x[0:1, 1:4:2, -4:-1, 2:8:3],
    ),
    "slice_by_index_masks": (
        lambda mb, v: mb.slice_by_index(
            x=v.x,
            begin=[1, 1, 2, 3],
            end=[0, 2, 3, 6],
            begin_mask=[True, False, True, False],
            end_mask=[True, False, False, True],
            squeeze_mask=[False, True, False, False],
        ),
        lambda v: v.x[:, 1, :3, 3:],
    ),
    "slice_by_index_backwards": (
        lambda mb, v: mb.slice_by_index(
            x=v.x,
            begin=[0, 3, 4, 7],
            end=[0, 0, 1, 0],
            stride=[1, -1, -2, -3],
            begin_mask=[True, True, False, False],
            end_mask=[True, True, False, True],
        ),
        lambda v: v.x[:, ::-1, 4:1:-2, 7::-3],
    ),
    "slice_by_index_last": (
        lambda mb, v: mb.slice_by_index(
            x=v.n, begin=[-1, -2], end=[0, 0], squeeze_mask=[True, False], end_mask=[False, True]
        ),
        lambda v: v.n[-1, -2:],
    ),
    "slice_by_size": (
        lambda mb, v: mb.slice_by_size(x=v.x, begin=[1, 0, 2, 3], size=[1, 2, -1, 4]),
        lambda v: v.x[1:, :2, 2:, 3:7],
    ),
    "slice_update": (
        lambda mb, v: mb.slice_update(
            x=v.x,
            update=mb.slice_by_size(x=v.y, begin=[0, 0, 0, 0], size=[2, 2, 6, 3]),
            begin=[0, 1, 0, 1],
            end=[0, 3, 0, 7],
            stride=[1, 1, 1, 2],
            begin_mask=[True, False, True, False],
            end_mask=[True, False, True, False],
        ),
        lambda v: updated(
            v.x, (slice(None), slice(1, 3), slice(None), slice(1, 7, 2)), v.y[:, :2, :, :3]
        ),
    ),
    "slice_update_squeezed": (
        lambda mb, v: mb.slice_update(
            x=v.n,
            update=mb.slice_by_index(
                x=v.m, begin=[0, 0], end=[0, 0], end_mask=[False, True], squeeze_mask=[True, False]
            ),
            begin=[-1, 0],
            end=[0, 0],
            end_mask=[False, True],
            squeeze_mask=[True, False],
        ),
        lambda v: updated(v.n, (-1,), v.m[0]),
    ),
    "crop": (
        lambda mb, v: mb.crop(x=v.x, crop_height=[1, 2], crop_width=[0, 3]),
        lambda v: v.x[:, :, 1:4, :5],
    ),
}


def updated(x: NDArray[Any], places: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Return an array with other values at some places."""
    found = x.copy()
    found[places] = values
    return found


ROWS = np.array([[5, 0], [3, 3], [1, 2]], np.int32)
CORNERS = np.array([[0, 1], [1, 3], [0, 0]], np.int32)
ORDER = np.random.default_rng(3).permuted(np.tile(np.arange(6), (2, 4, 8, 1)), axis=3)
ALONG = np.ascontiguousarray(ORDER.transpose(0, 1, 3, 2)[:, :, :2]).astype(np.int32)

PLACES: dict[str, Case] = {
    "gather": (
        lambda mb, v: mb.gather(x=v.x, indices=ROWS, axis=2),
        lambda v: v.x[:, :, ROWS],
    ),
    "gather_scalar": (lambda mb, v: mb.gather(x=v.n, indices=np.int32(2)), lambda v: v.n[2]),
    "gather_batch": (
        lambda mb, v: mb.gather(x=v.x, indices=CORNERS[:2], axis=1, batch_dims=1),
        lambda v: np.stack([v.x[0][CORNERS[0]], v.x[1][CORNERS[1]]]),
    ),
    "gather_along_axis": (
        lambda mb, v: mb.gather_along_axis(x=v.x, indices=ALONG, axis=2),
        lambda v: np.take_along_axis(v.x, ALONG, 2),
    ),
    "gather_nd": (
        lambda mb, v: mb.gather_nd(x=v.x, indices=CORNERS),
        lambda v: v.x[CORNERS[:, 0], CORNERS[:, 1]],
    ),
    "gather_nd_batch": (
        lambda mb, v: mb.gather_nd(x=v.x, indices=CORNERS[:2], batch_dims=1),
        lambda v: v.x[[0, 1], CORNERS[:2, 0], CORNERS[:2, 1]],
    ),
    **{
        f"scatter_{mode}": (
            lambda mb, v, mode=mode: mb.scatter(
                data=v.y,
                indices=np.array([3, 1], np.int32),
                updates=mb.slice_by_size(x=v.x, begin=[0, 0, 0, 0], size=[2, 2, 6, 8]),
                axis=1,
                mode=mode,
            ),
            lambda v, answer=answer: updated(
                v.y, (slice(None), [3, 1]), answer(v.y[:, [3, 1]], v.x[:, :2])
            ),
        )
        for mode, answer in {
            "update": lambda old, new: new,
            "add": np.add,
            "sub": np.subtract,
            "mul": np.multiply,
            "div": np.divide,
            "max": np.maximum,
            "min": np.minimum,
        }.items()
    },
    "scatter_twice": (
        lambda mb, v: mb.scatter(
            data=v.n, indices=np.array([1, 1], np.int32), updates=np.full((2, 8), 3, np.int32)
        ),
        lambda v: v.n + 6 * np.eye(3, dtype=np.int32)[1][:, None],
    ),
    "scatter_along_axis": (
        lambda mb, v: mb.scatter_along_axis(
            data=v.y,
            indices=ALONG,
            updates=mb.slice_by_size(x=v.x, begin=[0, 0, 0, 0], size=[2, 4, 2, 8]),
            axis=2,
            mode="update",
        ),
        lambda v: put_along(v.y, ALONG, v.x[:, :, :2]),
    ),
    "scatter_nd": (
        lambda mb, v: mb.scatter_nd(
            data=v.y,
            indices=CORNERS,
            updates=mb.reshape(
                x=mb.slice_by_size(x=v.x, begin=[0, 0, 0, 0], size=[1, 3, 6, 8]), shape=[3, 6, 8]
            ),
        ),
        lambda v: updated(
            v.y, (CORNERS[:, 0], CORNERS[:, 1]), v.y[CORNERS[:, 0], CORNERS[:, 1]] + v.x[0, :3]
        ),
    ),
}


def put_along(x: NDArray[Any], places: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Return an array with values put along its third axis."""
    found = x.copy()
    np.put_along_axis(found, places.astype(np.int64), values, 2)
    return found


MADE: dict[str, Case] = {
    "fill": (
        lambda mb, v: mb.fill(shape=[2, 3], value=np.int32(7)),
        lambda v: np.full((2, 3), 7),
    ),
    "fill_zeros": (
        lambda mb, v: mb.fill(shape=mb.shape(x=v.n)),
        lambda v: np.zeros((3, 8), np.float32),
    ),
    "fill_like": (
        lambda mb, v: mb.fill_like(ref_tensor=v.n, value=np.float32(2.5)),
        lambda v: np.full((3, 8), 2.5, np.float32),
    ),
    "shape": (lambda mb, v: mb.shape(x=v.x), lambda v: np.array([2, 4, 6, 8])),
    "range_1d": (
        lambda mb, v: mb.range_1d(start=np.int32(9), end=np.int32(-2), step=np.int32(-3)),
        lambda v: np.arange(9, -2, -3),
    ),
    "range_1d_floats": (
        lambda mb, v: mb.range_1d(start=np.float32(0), end=np.float32(1), step=np.float32(0.25)),
        lambda v: np.arange(0, 1, 0.25, np.float32),
    ),
    "tile": (
        lambda mb, v: mb.tile(x=v.x, reps=[1, 3, 1, 2]),
        lambda v: np.tile(v.x, (1, 3, 1, 2)),
    ),
    "one_hot": (
        lambda mb, v: mb.one_hot(indices=v.m, one_hot_vector_size=6),
        lambda v: np.eye(6)[v.m].astype(int),
    ),
    "one_hot_values": (
        lambda mb, v: mb.one_hot(
            indices=v.m,
            one_hot_vector_size=6,
            axis=1,
            on_value=scalar(v.x, 2),
            off_value=scalar(v.x, -1),
        ),
        lambda v: 3 * np.eye(6, dtype=np.float32)[v.m].transpose(0, 2, 1) - 1,
    ),
    "band_part": (
        lambda mb, v: mb.band_part(x=v.x, lower=1, upper=-1),
        lambda v: np.triu(v.x, -1),
    ),
    "band_part_upper": (
        lambda mb, v: mb.band_part(x=v.x, upper=2),
        lambda v: np.tril(v.x, 2),
    ),
    "non_zero": (
        lambda mb, v: mb.reduce_sum(x=mb.non_zero(x=v.t), axes=[0]),
        lambda v: np.argwhere(v.t).sum(0),
    ),
}

MOVES: dict[str, Case] = {**SHAPES, **SLICES, **PLACES, **MADE}
