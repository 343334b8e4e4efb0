"""Operations that make tensors of a size that they are told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function, Ints
from mvsdk_export.targets.coreml.checker.values import MAX_ELEMENTS


def check_elements(sizes: Sequence[int]) -> None:
    """Refuse a tensor that no package of use has, before memory is asked for.

    Raises:
        ValueError: If it is too large.
    """
    if math.prod(max(size, 1) for size in sizes) > MAX_ELEMENTS:
        raise ValueError(f"it makes a tensor of {tuple(sizes)}, more than {MAX_ELEMENTS} elements")


def _fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    check_elements(shape)
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape)


def _fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return _fill(tuple(ref_tensor.shape), value)


def _range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    first, last, by = start.item(), end.item(), step.item()
    check_elements([math.ceil((last - first) / by)])
    return torch.arange(first, last, by, dtype=start.dtype)


def _shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


def _tile(x: Tensor, reps: Ints) -> Tensor:
    if len(reps) != x.ndim:
        raise ValueError(f"{len(reps)} repetitions for {x.ndim} axes")
    check_elements([size * count for size, count in zip(x.shape, reps, strict=True)])
    return x.repeat(reps)


def _one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """Put vectors along a new axis: `on_value` where the index is, `off_value` elsewhere."""
    check_elements([*indices.shape, one_hot_vector_size])
    place = axis % (indices.ndim + 1)
    along = [1] * (indices.ndim + 1)
    along[place] = -1
    hit = indices.unsqueeze(place) == torch.arange(one_hot_vector_size).reshape(along)
    on = torch.tensor(1, dtype=torch.int32) if on_value is None else on_value.reshape(())
    off = torch.zeros_like(on) if off_value is None else off_value.reshape(())
    return torch.where(hit, on, off)


def _band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """Keep a band around the diagonal of the last two axes; negative numbers keep all."""
    rows = torch.arange(x.shape[-2]).unsqueeze(1)
    columns = torch.arange(x.shape[-1])
    kept = ((rows - columns <= lower) | (lower < 0)) & ((columns - rows <= upper) | (upper < 0))
    return torch.where(kept, x, torch.zeros_like(x))


def _non_zero(x: Tensor) -> Tensor:
    return x.nonzero()


MAKING: Mapping[str, Function] = {
    "band_part": _band_part,
    "fill": _fill,
    "fill_like": _fill_like,
    "non_zero": _non_zero,
    "one_hot": _one_hot,
    "range_1d": _range_1d,
    "shape": _shape,
    "tile": _tile,
}
