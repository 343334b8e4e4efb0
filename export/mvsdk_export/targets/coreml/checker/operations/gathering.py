"""Values taken from, or put at, places that other values name.

Negative places count from the end, as iOS 15 and 16 have it; what iOS 17 leaves undefined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mvsdk_export.targets.coreml.checker.binding import Function
from mvsdk_export.targets.coreml.checker.operations.elementwise import divide

Mode = Literal["update", "add", "sub", "mul", "div", "max", "min"]


def _from_start(indices: Tensor, size: int) -> Tensor:
    """Return places counted from the start.

    Raises:
        IndexError: If one is outside.
    """
    places = indices.to(torch.int64)
    if places.numel() and not -size <= int(places.min()) <= int(places.max()) < size:
        raise IndexError(f"places {int(places.min())} to {int(places.max())} of an axis of {size}")
    return torch.where(places < 0, places + size, places)


def _gather(
    x: Tensor,
    indices: Tensor,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    """Take slices along an axis; with batches, each entry's from its own."""
    axis = axis % x.ndim
    places = _from_start(indices, x.shape[axis])
    if batch_dims == 0:
        taken = x.index_select(axis, places.reshape(-1))
        return taken.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    batch = x.shape[:batch_dims]
    entries = zip(x.flatten(0, batch_dims - 1), places.flatten(0, batch_dims - 1), strict=True)
    taken = torch.stack([_gather(item, at, axis - batch_dims) for item, at in entries])
    return taken.reshape(*batch, *taken.shape[1:])


def _gather_along_axis(
    x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    return x.gather(axis, _from_start(indices, x.shape[axis]))


def _gather_nd(
    x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take what the last axis of `indices` names: a place for each of some leading axes."""
    depth = indices.shape[-1]
    sizes = x.shape[batch_dims : batch_dims + depth]
    places = [_from_start(item, size) for item, size in zip(indices.unbind(-1), sizes, strict=True)]
    batch: list[Tensor] = []
    for axis in range(batch_dims):
        along = [1] * (indices.ndim - 1)
        along[axis] = -1
        batch.append(torch.arange(x.shape[axis]).reshape(along))
    return x[(*batch, *places)]


def _scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: Mode = "add",
    validate_indices: bool = False,
) -> Tensor:
    places = _from_start(indices, data.shape[axis])
    if mode == "update":
        return data.scatter(axis, places, updates)
    if mode in ("add", "sub"):
        return data.scatter_add(axis, places, updates if mode == "add" else -updates)
    if mode == "div":  # by all that fall on a place
        whole = torch.ones_like(data).scatter_reduce(axis, places, updates, "prod")
        return divide(data, whole)
    reduce = {"mul": "prod", "max": "amax", "min": "amin"}[mode]
    return data.scatter_reduce(axis, places, updates, reduce)


def _scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: Mode = "add",
    validate_indices: bool = False,
) -> Tensor:
    """Put slices at places of an axis."""
    axis = axis % data.ndim
    rows = updates.reshape(*data.shape[:axis], -1, *data.shape[axis + 1 :])
    along = [1] * data.ndim
    along[axis] = -1
    places = indices.reshape(along).expand(rows.shape)
    return _scatter_along_axis(data, places, rows, axis, mode)


def _scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: Mode = "add",
    validate_indices: bool = False,
) -> Tensor:
    """Put slices where the last axis of `indices` says: a place for each leading axis."""
    depth = indices.shape[-1]
    sizes = data.shape[:depth]
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for item, size in zip(indices.unbind(-1), sizes, strict=True):
        flat = flat * size + _from_start(item, size)
    rest = math.prod(data.shape[depth:])
    rows = data.reshape(math.prod(sizes), rest)
    found = _scatter(rows, flat.reshape(-1), updates.reshape(-1, rest), 0, mode)
    return found.reshape(data.shape)


GATHERING: Mapping[str, Function] = {
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
}
