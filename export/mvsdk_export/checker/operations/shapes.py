"""Operations that move elements: shapes, slices, joints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.checker.arguments import Arguments


def _reshape(a: Arguments) -> Tensor:
    x = a.tensor()
    wanted = a.ints("shape")
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(wanted)])


def _reshape_like(a: Arguments) -> Tensor:
    x = a.tensor()
    sizes: list[int] = []
    begins, ends = a.ints("begins"), a.ints("ends")
    for other, begin, end in zip(a.all("ref_tensors"), begins, ends, strict=True):
        shape = list(other.shape)
        sizes += shape[begin : end or None]
    return x.reshape(sizes)


def _expand_dims(a: Arguments) -> Tensor:
    x, axes = a.tensor(), a.ints("axes")
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(a: Arguments) -> Tensor:
    x = a.tensor()
    if not a.has("axes"):
        return x.squeeze()
    return x.squeeze(tuple(axis % x.dim() for axis in a.ints("axes")))


def _concat(a: Arguments) -> Tensor:
    values, axis = a.all("values"), a.int("axis")
    if not a.bool("interleave"):
        return torch.cat(values, dim=axis)
    axis %= values[0].dim()
    return torch.stack(values, dim=axis + 1).flatten(axis, axis + 1)


def _split(a: Arguments) -> list[Tensor]:
    x, axis = a.tensor(), a.int("axis")
    if a.has("split_sizes"):
        return list(x.split(a.ints("split_sizes"), dim=axis))
    return list(x.chunk(a.int("num_splits"), dim=axis))


def _slice_by_index(a: Arguments) -> Tensor:
    x = a.tensor()
    places, squeezed = slices_of(a, list(x.shape))
    for axis, place in enumerate(places):
        x = x.index_select(axis, place)
    return x.squeeze(tuple(squeezed)) if squeezed else x


def slices_of(a: Arguments, shape: list[int]) -> tuple[list[Tensor], list[int]]:
    """Return the places along each axis that `begin`, `end`, `stride` and the masks mean.

    Args:
        a: Arguments.
        shape: Of what is sliced.

    Returns:
        Places, and axes that are dropped.
    """
    rank = len(shape)
    begins, ends = a.ints("begin"), a.ints("end")
    strides = a.ints("stride", [1] * rank)
    open_begin, open_end = a.bools("begin_mask", rank), a.bools("end_mask", rank)
    squeeze = a.bools("squeeze_mask", rank)
    places: list[Tensor] = []
    for axis, size in enumerate(shape):
        stride = strides[axis]
        begin = None if open_begin[axis] else begins[axis]
        end = None if open_end[axis] else ends[axis]
        if squeeze[axis]:
            first = (begin or 0) % size if begin is not None else 0
            places.append(torch.tensor([first]))
            continue
        found = range(size)[slice(begin, end, stride)]
        places.append(torch.tensor(list(found), dtype=torch.int64))
    return places, [axis for axis in range(rank) if squeeze[axis]]


def _slice_by_size(a: Arguments) -> Tensor:
    x = a.tensor()
    for axis, (begin, size) in enumerate(zip(a.ints("begin"), a.ints("size"), strict=True)):
        begin %= x.shape[axis]
        x = x.narrow(axis, begin, x.shape[axis] - begin if size == -1 else size)
    return x


def _slice_update(a: Arguments) -> Tensor:
    x = a.tensor().clone()
    places, squeezed = slices_of(a, list(x.shape))
    update = a.tensor("update")
    for axis in squeezed:
        update = update.unsqueeze(axis)
    x[torch.meshgrid(*places, indexing="ij")] = update.expand([len(p) for p in places])
    return x


def _tile(a: Arguments) -> Tensor:
    return a.tensor().repeat(a.ints("reps"))


def _pad(a: Arguments) -> Tensor:
    x, pad, mode = a.tensor(), a.ints("pad"), a.text("mode", "constant")
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    flat = [amount for pair in reversed(pairs) for amount in pair]
    if mode == "constant":
        return F.pad(x, flat, value=a.float("constant_val"))
    lead = x.dim() - len(pairs)
    for axis, (before, after) in enumerate(pairs, start=lead):
        size = x.shape[axis]
        places = torch.arange(-before, size + after)
        if mode == "replicate":
            places = places.clamp(0, size - 1)
        else:
            places = places.abs()
            places = torch.where(places >= size, 2 * (size - 1) - places, places)
        x = x.index_select(axis, places)
    return x


def _range_1d(a: Arguments) -> Tensor:
    start, end, step = (a.tensor(name) for name in ("start", "end", "step"))
    return torch.arange(start.item(), end.item(), step.item())


def _fill(a: Arguments) -> Tensor:
    return torch.full(a.ints("shape"), a.get("value", torch.zeros(())).item())


def _fill_like(a: Arguments) -> Tensor:
    return torch.full(a.tensor("ref_tensor").shape, a.get("value", torch.zeros(())).item())


def _band_part(a: Arguments) -> Tensor:
    x = a.tensor()
    lower, upper = a.int("lower", -1), a.int("upper", -1)
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    kept = ((lower < 0) | (rows - columns <= lower)) & ((upper < 0) | (columns - rows <= upper))
    return torch.where(kept, x, torch.zeros((), dtype=x.dtype))


SHAPES: Mapping[str, Callable[[Arguments], Any]] = {
    "band_part": _band_part,
    "concat": _concat,
    "expand_dims": _expand_dims,
    "fill": _fill,
    "fill_like": _fill_like,
    "flatten2d": lambda a: a.tensor().reshape(a.tensor().shape[: a.int("axis", 1)].numel(), -1),
    "pad": _pad,
    "range_1d": _range_1d,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": lambda a: a.tensor().flip(a.ints("axes", list(range(a.tensor().dim())))),
    "shape": lambda a: torch.tensor(a.tensor().shape),
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "split": _split,
    "squeeze": _squeeze,
    "stack": lambda a: torch.stack(a.all("values"), dim=a.int("axis")),
    "tile": _tile,
    "transpose": lambda a: a.tensor().permute(a.ints("perm")),
}
