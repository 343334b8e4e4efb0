"""Operations that pick elements by places: gathers, scatters, sorting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.checker.arguments import Arguments


def _within(places: Tensor, size: int) -> Tensor:
    """Count places from the end where they are negative."""
    return torch.where(places < 0, places + size, places).long()


def _gather(a: Arguments) -> Tensor:
    x, places, axis = a.tensor(), a.tensor("indices"), a.int("axis", 0)
    batched = a.int("batch_dims", 0)
    axis %= x.dim()
    places = _within(places, x.shape[axis])
    if not batched:
        found = x.index_select(axis, places.reshape(-1))
        return found.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    lead = x.shape[:batched].numel()
    rows = x.reshape(lead, *x.shape[batched:])
    picks = places.reshape(lead, *places.shape[batched:])
    parts = [
        row.index_select(axis - batched, pick.reshape(-1)).reshape(
            *row.shape[: axis - batched], *pick.shape, *row.shape[axis - batched + 1 :]
        )
        for row, pick in zip(rows, picks, strict=True)
    ]
    return torch.stack(parts).reshape(*x.shape[:batched], *parts[0].shape)


def _gather_along_axis(a: Arguments) -> Tensor:
    x, axis = a.tensor(), a.int("axis", 0)
    return x.gather(axis, _within(a.tensor("indices"), x.shape[axis]))


def _gather_nd(a: Arguments) -> Tensor:
    x, places = a.tensor(), a.tensor("indices").long()
    batched = a.int("batch_dims", 0)
    lead = [
        torch.arange(size).reshape([-1 if i == axis else 1 for i in range(places.dim() - 1)])
        for axis, size in enumerate(x.shape[:batched])
    ]
    return x[(*lead, *places.unbind(-1))]


_UPDATES: Mapping[str, str] = {
    "add": "sum",
    "mul": "prod",
    "max": "amax",
    "min": "amin",
}


def _scatter_along_axis(a: Arguments) -> Tensor:
    x, axis, mode = a.tensor("data"), a.int("axis", 0), a.text("mode", "add")
    places, updates = _within(a.tensor("indices"), x.shape[axis]), a.tensor("updates")
    if mode == "update":
        return x.scatter(axis, places, updates)
    if mode == "sub":
        return x.scatter_reduce(axis, places, -updates, "sum")
    if mode == "div":
        return x.scatter_reduce(axis, places, 1 / updates, "prod")
    return x.scatter_reduce(axis, places, updates, _UPDATES[mode])


def _scatter_nd(a: Arguments) -> Tensor:
    x, mode = a.tensor("data").clone(), a.text("mode", "add")
    places, updates = tuple(a.tensor("indices").long().unbind(-1)), a.tensor("updates")
    if mode == "update":
        x[places] = updates
        return x
    if mode != "add":
        raise ValueError(f"the mode {mode} is not known here")
    return x.index_put(places, updates, accumulate=True)


def _topk(a: Arguments) -> tuple[Tensor, ...]:
    values, places = a.tensor().topk(
        a.int("k", 1), dim=a.int("axis", -1), largest=not a.bool("ascending"), sorted=True
    )
    return values, places


def _argsort(a: Arguments) -> Tensor:
    return a.tensor().argsort(
        dim=a.int("axis", -1), descending=not a.bool("ascending"), stable=True
    )


def _one_hot(a: Arguments) -> Tensor:
    places, size = a.tensor("indices").long(), a.int("one_hot_vector_size")
    found = F.one_hot(_within(places, size), size).movedim(-1, a.int("axis", -1))
    on = a.get("on_value", torch.ones(()))
    off = a.get("off_value", torch.zeros(()))
    return torch.where(found.bool(), on, off)


PLACES: Mapping[str, Callable[[Arguments], Any]] = {
    "argsort": _argsort,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "one_hot": _one_hot,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
    "topk": _topk,
}
