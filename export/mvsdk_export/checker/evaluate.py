"""Evaluation of a saved package, operation by operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvsdk.errors import BundleError, InputError
from mvsdk_export.checker.arguments import Arguments
from mvsdk_export.checker.constants import DECODERS, decode, read_value
from mvsdk_export.checker.operations import OPERATIONS
from mvsdk_export.checker.package import Package, Source, Tensor, open_package
from mvsdk_export.checker.values import tensor_type
from mvsdk_export.errors import UnsupportedOpError

_KINDS: Mapping[str, torch.dtype] = {
    "float16": torch.float32,  # rounded to float16 after every operation
    "float32": torch.float32,
    "bool": torch.bool,
    **dict.fromkeys(
        ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "int4"), torch.int64
    ),
    **dict.fromkeys(("uint1", "uint2", "uint3", "uint4", "uint6"), torch.int64),
}
"""Type of a program -> type that stands for it here."""


@dataclass(frozen=True, slots=True)
class _Result:
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation, ready to run."""

    type: str
    run: Callable[[Arguments], Any]
    bound: Mapping[str, tuple[str, ...]]
    """Parameter -> names of values."""
    inline: Mapping[str, Any]
    """Parameter -> constant that the operation itself holds."""
    results: tuple[_Result, ...]
    last: tuple[str, ...]
    """Values that nothing reads afterwards."""


class Program:
    """A function of a package, with its constants decoded."""

    def __init__(self, package: Package, function: str | None = None) -> None:
        """Use `load_program`."""
        self.inputs: tuple[Tensor, ...] = package.inputs(function)
        self.outputs: tuple[Tensor, ...] = package.outputs(function)
        sources = package.sources(function)
        check_operations(sources)
        self._parts = [_Part(package, source) for source in sources]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Evaluate once.

        Args:
            inputs: One array for each of `inputs`, of its shape and type.

        Returns:
            One array for each of `outputs`.

        Raises:
            InputError: If an input is missing, or of another shape or type.
            BundleError: If an operation makes something else than its type says.
        """
        known: dict[str, torch.Tensor] = {}
        for item in self.inputs:
            known[item.name] = _taken(item, inputs)
        with torch.inference_mode():
            for part in self._parts:
                known |= part.run(known)
        return {item.name: known[item.name].numpy().astype(item.dtype) for item in self.outputs}


def load_program(path: Path, function: str | None = None) -> Program:
    """Open a package and decode a function of it.

    Args:
        path: The .mlpackage folder.
        function: Of a package that has several; None for the default.

    Raises:
        TargetUnavailableError: If coremltools is missing.
        BundleError: If the package is damaged, unsafe, or has no such function.
        UnsupportedOpError: If it has operations that are not known here; all are named.
    """
    return Program(open_package(path), function)


def check_operations(sources: Sequence[Source]) -> None:
    """Refuse operations that cannot be evaluated, before anything is.

    Raises:
        UnsupportedOpError: Names all of them, and how many there are of each.
    """
    found = Counter(operation.type for source in sources for operation in source.block.operations)
    known = OPERATIONS.keys() | DECODERS.keys() | {"const"}
    if unknown := {name: count for name, count in found.items() if name not in known}:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items()))
        raise UnsupportedOpError(
            f"the checker does not know the operations {listed[:500]}; verify the package on a Mac"
        )


class _Part:
    """One program of a package."""

    def __init__(self, package: Package, source: Source) -> None:
        block = source.block
        self._outputs = list(block.outputs)
        self._inputs = [item.name for item in source.program.functions[source.function].inputs]
        constants: dict[str, Any] = {}
        steps: list[Any] = []
        for operation in block.operations:
            if not operation.type.startswith("const"):
                steps.append(operation)
                continue
            found = decode(package, operation, constants)
            values = found if isinstance(found, tuple) else (found,)
            for output, value in zip(operation.outputs, values, strict=True):
                constants[output.name] = value
        read = {name for step in steps for name in _names(step)} | set(self._outputs)
        self._constants = {k: _constant(v) for k, v in constants.items() if k in read}
        self._steps = [_prepare(package, step) for step in _with_last(steps, self._outputs)]

    def run(self, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        values: dict[str, Any] = {name: given[name] for name in self._inputs}
        constants = self._constants
        for step in self._steps:
            arguments = Arguments(step.bound, step.inline, values, constants)
            try:
                made = step.run(arguments)
            except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as exc:
                raise BundleError(
                    f"{step.type} {step.results[0].name[:64]!a} cannot be evaluated: "
                    f"{str(exc).splitlines()[0] if str(exc) else type(exc).__name__}; "
                    "export the package again"
                ) from exc
            several = made if isinstance(made, list | tuple) else (made,)
            for result, value in zip(step.results, several, strict=True):
                values[result.name] = _stored(step, result, value)
            for name in step.last:
                values.pop(name, None)
        return {name: values[name] if name in values else constants[name] for name in self._outputs}


def _with_last(steps: Sequence[Any], outputs: Sequence[str]) -> list[tuple[Any, tuple[str, ...]]]:
    """Return every operation with the values that nothing reads after it."""
    seen = set(outputs)
    found: list[tuple[Any, tuple[str, ...]]] = []
    for step in reversed(steps):
        names = {*_names(step), *(x.name for x in step.outputs)}
        found.append((step, tuple(sorted(names - seen))))
        seen |= names
    return found[::-1]


def _prepare(package: Package, item: tuple[Any, tuple[str, ...]]) -> _Step:
    operation, last = item
    bound: dict[str, tuple[str, ...]] = {}
    inline: dict[str, Any] = {}
    for parameter, argument in operation.inputs.items():
        kinds = {x.WhichOneof("binding") for x in argument.arguments}
        if kinds == {"value"}:
            found = [_constant(read_value(package, x.value)) for x in argument.arguments]
            inline[parameter] = found[0] if len(found) == 1 else found
        else:
            bound[parameter] = tuple(x.name for x in argument.arguments)
    types = [(x.name, tensor_type(x.type)) for x in operation.outputs]
    return _Step(
        type=operation.type,
        run=OPERATIONS[operation.type],
        bound=bound,
        inline=inline,
        results=tuple(_Result(name, kind.dtype, kind.shape) for name, kind in types),
        last=last,
    )


def _names(operation: Any) -> list[str]:
    return [
        x.name
        for argument in operation.inputs.values()
        for x in argument.arguments
        if x.WhichOneof("binding") == "name"
    ]


def _constant(value: Any) -> Any:
    """Return a constant as operations take it: tensors of numbers, texts as they are."""
    if isinstance(value, str | list):
        return value
    if value.dtype == np.bool_:
        return torch.from_numpy(np.array(value))
    if value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float32))
    return torch.from_numpy(value.astype(np.int64))


def _stored(step: _Step, result: _Result, value: torch.Tensor) -> torch.Tensor:
    """Bring a result to its type, and check its shape."""
    if tuple(value.shape) != result.shape:
        raise BundleError(
            f"{step.type} {result.name[:64]!a} gives {tuple(value.shape)}, its type says "
            f"{result.shape}; export the package again"
        )
    if result.dtype == "float16":
        return value.half().float()
    return value.to(_KINDS[result.dtype])


def _taken(item: Tensor, inputs: Mapping[str, NDArray[Any]]) -> torch.Tensor:
    value = inputs.get(item.name)
    if value is None:
        given = ", ".join(inputs) or "nothing"
        raise InputError(f"the package wants the input {item.name!a}; given: {given[:200]}")
    if value.shape != item.shape or value.dtype != np.dtype(item.dtype):
        raise InputError(
            f"the input {item.name!a} has shape {value.shape} and type {value.dtype}, the package "
            f"wants {item.shape} and {item.dtype}"
        )
    return torch.from_numpy(value.astype(np.float32 if value.dtype.kind == "f" else np.int64))
