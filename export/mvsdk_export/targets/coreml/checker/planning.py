"""Operations of a program made ready to run: parameters found, types known, constants in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvsdk._text import quoted
from mvsdk.errors import BundleError
from mvsdk_export.targets.coreml.checker.binding import (
    HELD,
    ROUNDED,
    Parameter,
    as_number,
    parameters_of,
    to_tensor,
)
from mvsdk_export.targets.coreml.checker.constants import Constants
from mvsdk_export.targets.coreml.checker.folder import PackageFolder
from mvsdk_export.targets.coreml.checker.operations import EXACT, OPERATIONS
from mvsdk_export.targets.coreml.checker.values import Constant, TensorType, read_type

WIDE_BYTES = 2 << 30
"""Weights of float16 are kept as float32 up to this size in all. Above it they stay in the mapped
file, and each is widened whenever it is used."""

FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What numpy, PyTorch and Python raise where a damaged program asks for the impossible."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation makes."""

    name: str
    kind: TensorType
    held: torch.dtype
    rounded: torch.dtype | None
    """Type to whose precision it is rounded; None where that changes nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, ready to run."""

    type: str
    compute: Callable[..., Any]
    fixed: Mapping[str, Any]
    """Parameter -> constant."""
    bound: tuple[tuple[Parameter, tuple[str | Tensor, ...]], ...]
    """Parameters that are found when it runs: names of values, and constants still in float16."""
    results: tuple[Result, ...]
    freed: tuple[str, ...]
    """Values that nothing reads after it."""


class Planner:
    """Makes steps of operations, in their order."""

    def __init__(
        self, folder: PackageFolder, constants: Constants, inputs: Mapping[str, TensorType]
    ) -> None:
        """Begin before the first operation.

        Args:
            folder: The package, for messages.
            constants: All that operations and outputs read.
            inputs: Types of the program's inputs.
        """
        self._folder = folder
        self._constants = constants
        self._known = dict(inputs)
        self._tensors: dict[str, Tensor] = {}
        self._widen = 4 * sum(map(_half_size, constants.values.values())) <= WIDE_BYTES

    def type_of(self, name: str) -> TensorType:
        """Return the type of a value or constant that is known by now.

        Raises:
            BundleError: If nothing made it yet.
        """
        kind = self._known.get(name) or self._constants.types.get(name)
        if kind is None:
            raise self._folder.damaged(f"uses {quoted(name)} before anything makes it")
        return kind

    def source(self, name: str) -> str | Tensor:
        """Return where a value is found: its name, or the tensor of a constant."""
        if name not in self._constants.values:
            self.type_of(name)
            return name
        if name not in self._tensors:
            self._tensors[name] = self._tensor(self._constants.values[name])
        return self._tensors[name]

    def plan(self, operation: Any, freed: Sequence[str]) -> Step:
        """Return an operation ready to run.

        Raises:
            BundleError: If it lacks a parameter, or is given something else.
        """
        try:
            fixed, bound = self._parameters(operation)
            results = tuple(self._result(operation, item) for item in operation.outputs)
        except BundleError:
            raise
        except FAILURES as exc:
            name = operation.outputs[0].name if operation.outputs else ""
            raise self._folder.damaged(
                f"has a damaged operation {operation.type} {quoted(name)}: {exc}"
            ) from exc
        for result in results:
            self._known[result.name] = result.kind
        compute = OPERATIONS[operation.type]
        return Step(operation.type, compute, fixed, tuple(bound), results, tuple(freed))

    def _parameters(
        self, operation: Any
    ) -> tuple[dict[str, Any], list[tuple[Parameter, tuple[str | Tensor, ...]]]]:
        """Return the parameters that are known now, and those that are found when it runs."""
        fixed: dict[str, Any] = {}
        bound: list[tuple[Parameter, tuple[str | Tensor, ...]]] = []
        for name, parameter in parameters_of(OPERATIONS[operation.type]).items():
            if name not in operation.inputs:
                if parameter.required:
                    raise KeyError(f"the parameter {name} is missing")
                continue
            arguments = operation.inputs[name].arguments
            if parameter.kind != "tensors" and len(arguments) != 1:
                raise ValueError(f"{len(arguments)} values are given for {name}")
            if parameter.kind in ("tensor", "tensors"):
                sources = tuple(self._source(item) for item in arguments)
                if any(isinstance(x, str) or x.dtype == torch.float16 for x in sources):
                    bound.append((parameter, sources))
                else:
                    fixed[name] = sources if parameter.kind == "tensors" else sources[0]
            elif (value := self._constant(arguments[0])) is not None:
                fixed[name] = _as_python(parameter, value)
            else:
                bound.append((parameter, (self._source(arguments[0]),)))
        return fixed, bound

    def _source(self, item: Any) -> str | Tensor:
        if item.WhichOneof("binding") == "name":
            return self.source(item.name)
        return self._tensor(self._constants.read(item.value))

    def _constant(self, item: Any) -> Constant | None:
        """Return what an argument is, if it is a constant."""
        if item.WhichOneof("binding") == "name":
            return self._constants.values.get(item.name)
        return self._constants.read(item.value)

    def _tensor(self, value: Constant) -> Tensor:
        if isinstance(value, str):
            raise TypeError(f"the text {quoted(value)} is given where a tensor is wanted")
        return to_tensor(value, widen=self._widen)

    def _result(self, operation: Any, item: Any) -> Result:
        kind = read_type(item.type)
        if item.name in self._known or item.name in self._constants.values:
            raise ValueError("there is another value of its name")
        if kind.dtype not in HELD:
            raise TypeError(f"it makes values of the type {kind.dtype}")
        exact = operation.type in EXACT and self._float_types(operation) <= {kind.dtype}
        rounded = None if exact else ROUNDED.get(kind.dtype)
        return Result(item.name, kind, HELD[kind.dtype], rounded)

    def _float_types(self, operation: Any) -> set[str]:
        """Return the types of numbers with fractions that an operation is given."""
        found: set[str] = set()
        for argument in operation.inputs.values():
            for item in argument.arguments:
                named = item.WhichOneof("binding") == "name"
                kind = self.type_of(item.name) if named else read_type(item.value.type)
                found.add(kind.dtype)
        return {dtype for dtype in found if "float" in dtype}


def _as_python(parameter: Parameter, value: Constant) -> Any:
    if isinstance(value, str) == (parameter.kind == "text"):
        return value if isinstance(value, str) else as_number(parameter.kind, value)
    raise TypeError(f"another kind of value is given for {parameter.name}")


def _half_size(value: Constant) -> int:
    """Return how many numbers of float16 a constant has."""
    return value.size if not isinstance(value, str) and value.dtype == np.float16 else 0
