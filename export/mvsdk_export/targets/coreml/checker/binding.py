"""Operations as plain functions: what their parameters are, and how a program's values fill them.

An operation is a function whose parameters have MIL's names and defaults. Their annotations say
what a parameter is given: a tensor (`Tensor`), several (`Tensors`), an array of a constant
(`Array`), or numbers, truths and texts as Python has them. `Literal` lists the modes there are.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = tuple[bool, ...]
Ints = tuple[int, ...]
Tensors = tuple[torch.Tensor, ...]

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of an operation."""

    name: str
    kind: Literal["tensor", "tensors", "array", "int", "float", "bool", "text", "ints", "bools"]
    required: bool
    choices: tuple[str, ...] = ()
    """Texts that are known; empty where any may be given, or it is no text."""


_KINDS: Mapping[Any, Any] = {
    torch.Tensor: "tensor",
    Tensors: "tensors",
    Array: "array",
    int: "int",
    float: "float",
    bool: "bool",
    str: "text",
    Ints: "ints",
    Bools: "bools",
}


@functools.cache
def parameters_of(function: Function) -> Mapping[str, Parameter]:
    """Return the parameters of an operation by name, as its function declares them."""
    hints = typing.get_type_hints(function)
    found: dict[str, Parameter] = {}
    for name, item in inspect.signature(function).parameters.items():
        hint = hints[name]
        if isinstance(hint, types.UnionType):  # X | None
            (hint,) = (x for x in typing.get_args(hint) if x is not types.NoneType)
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        found[name] = Parameter(
            name=name,
            kind="text" if choices else _KINDS[hint],
            required=item.default is inspect.Parameter.empty,
            choices=choices,
        )
    return found


def as_number(kind: str, value: Any) -> Any:
    """Return a value as Python numbers or truths.

    Args:
        kind: Kind of the parameter, none of tensors or texts.
        value: An array or a tensor.

    Raises:
        ValueError: If it has more elements than the parameter takes.
        TypeError: If it is a text.
    """
    if isinstance(value, str):
        raise TypeError(f"a text is given where {kind} is wanted")
    flat = value.reshape(-1).tolist()
    if kind == "ints":
        return tuple(int(x) for x in flat)
    if kind == "bools":
        return tuple(bool(x) for x in flat)
    if len(flat) != 1:
        raise ValueError(f"{len(flat)} values are given where one {kind} is wanted")
    return {"int": int, "float": float, "bool": bool}[kind](flat[0])


HELD: Mapping[str, torch.dtype] = {
    "float16": torch.float32,
    "bfloat16": torch.float32,
    "float32": torch.float32,
    "float64": torch.float64,
    "bool": torch.bool,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.int32,
    "int32": torch.int32,
    "uint32": torch.int64,
    "int64": torch.int64,
}
"""Type of a value in a program -> type that holds it here. Values of float16 are rounded to it, and
held wide; PyTorch computes little with unsigned types, so the next wider signed ones hold them."""

ROUNDED: Mapping[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types to whose precision results are rounded."""


def to_tensor(value: Array, *, widen: bool = True) -> torch.Tensor:
    """Return a constant as operations take it.

    Args:
        value: An array; not changed.
        widen: Whether float16 becomes float32 now; else `widened` does it when it is used.
    """
    if value.dtype == np.float16 and not widen:
        return torch.from_numpy(np.ascontiguousarray(value))
    held = HELD.get(value.dtype.name)
    if held is None:
        raise TypeError(f"constants of {value.dtype} cannot be computed with")
    wide = {torch.float32: np.float32, torch.int32: np.int32, torch.int64: np.int64}
    target = wide.get(held, value.dtype.newbyteorder("="))
    return torch.from_numpy(np.array(value, dtype=target))


def widened(value: torch.Tensor) -> torch.Tensor:
    """Return a constant that was kept in float16 as float32; anything else as it is."""
    return value.float() if value.dtype == torch.float16 else value
