"""Slices, by bounds or by size, and what is put in their place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Bools, Function, Ints


def _ranges(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    begin_mask: Bools | None,
    end_mask: Bools | None,
    squeeze_mask: Bools | None,
) -> list[range]:
    """Return which places of each axis a slice takes, with numpy's rules for its bounds.

    A mask says for each axis: from the start, to the end, or one place, which is then dropped.
    """
    rank = x.ndim
    if not len(begin) == len(end) == rank:
        raise ValueError(f"{len(begin)} and {len(end)} bounds for {rank} axes")
    none = (False,) * rank
    steps = stride or (1,) * rank
    from_start, to_end, single = begin_mask or none, end_mask or none, squeeze_mask or none
    found: list[range] = []
    for axis, size in enumerate(x.shape):
        if single[axis]:
            place = 0 if from_start[axis] else begin[axis]
            if not -size <= place < size:
                raise IndexError(f"place {place} of an axis of {size}")
            found.append(range(place % size, place % size + 1))
            continue
        first = None if from_start[axis] else begin[axis]
        last = None if to_end[axis] else end[axis]
        found.append(range(*slice(first, last, steps[axis]).indices(size)))
    return found


def _squeezed(squeeze_mask: Bools | None) -> tuple[int, ...]:
    return tuple(axis for axis, single in enumerate(squeeze_mask or ()) if single)


def _take(x: Tensor, ranges: list[range]) -> Tensor:
    """Return a view where steps are positive; PyTorch has no negative ones."""
    for axis, places in enumerate(ranges):
        if len(places) == x.shape[axis] and places.step == 1:
            continue
        if places.step < 0:
            x = x.index_select(axis, torch.tensor(places, dtype=torch.int64))
        else:
            taken = slice(places.start, max(places.start, places.stop), places.step)
            x = x[(slice(None),) * axis + (taken,)]
    return x


def _slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    ranges = _ranges(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    dropped = _squeezed(squeeze_mask)
    x = _take(x, ranges)
    return x.squeeze(dropped) if dropped else x


def _slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """Take some places of each axis from a start; -1 takes the rest."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        first = first % x.shape[axis] if first < 0 else first
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


def _slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    ranges = _ranges(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    places = torch.meshgrid(*[torch.tensor(item) for item in ranges], indexing="ij")
    for axis in _squeezed(squeeze_mask):
        update = update.unsqueeze(axis)
    if tuple(update.shape) != tuple(len(item) for item in ranges):
        raise ValueError(f"{tuple(update.shape)} in the place of another shape")
    return x.index_put(places, update)


def _crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    """Take places off the ends of the last two axes."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


SLICING: Mapping[str, Function] = {
    "crop": _crop,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
}
