"""Sizes of what operations make, checked before memory is asked for.

A program of some hundred bytes can broadcast two rows to a table that no machine holds, and say
that the result is one number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode

from mvsdk_export.targets.coreml.checker.operations.making import check_elements


class BoundedTensors(TorchDispatchMode):
    """Inside, PyTorch makes no tensor of more than `MAX_ELEMENTS`.

    Raises:
        ValueError: Instead of making one.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute the shapes of what an operator will make, then run it."""
        kwargs = dict(kwargs or {})
        for made in _without_memory(func, args, kwargs):
            check_elements(made.shape)
        return func(*args, **kwargs)


def _without_memory(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return what an operator makes, on a device where tensors have no elements.

    Empty where that depends on the elements; what is wanted is then refused, or small.
    """
    given: list[Tensor] = []

    def without(item: Any) -> Any:
        if not isinstance(item, Tensor):
            return item
        given.append(item)
        return torch.empty_strided(item.shape, item.stride(), dtype=item.dtype, device="meta")

    found: list[Tensor] = []

    def keep(item: Any) -> Any:
        if isinstance(item, Tensor):
            found.append(item)
        return item

    with contextlib.suppress(Exception):  # whatever is wrong, the operator itself says
        bare, named = map_aggregate(args, without), map_aggregate(kwargs, without)
        if not given:
            named = {**named, "device": "meta"}
        map_aggregate(func(*bare, **named), keep)
    return found
