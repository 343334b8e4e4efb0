"""Evaluation of one program of a package, operation by operation.

Values of float16 are held as those float32 that float16 has: every operation computes in float32,
and its result is rounded where the program says float16. A value is freed after its last reader.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from mvsdk._text import quoted
from mvsdk.errors import BundleError
from mvsdk_export.targets.coreml.checker.binding import as_number, widened
from mvsdk_export.targets.coreml.checker.bounds import BoundedTensors
from mvsdk_export.targets.coreml.checker.constants import Constants
from mvsdk_export.targets.coreml.checker.folder import PackageFolder
from mvsdk_export.targets.coreml.checker.package import Source, is_constant
from mvsdk_export.targets.coreml.checker.planning import FAILURES, Planner, Result, Step
from mvsdk_export.targets.coreml.checker.values import ANY


class Evaluator:
    """One program with its constants decoded."""

    def __init__(self, folder: PackageFolder, source: Source) -> None:
        """Read the constants of a program, and prepare its operations.

        Args:
            folder: Where its files of weights are.
            source: The program; `check_operations` has passed it.

        Raises:
            BundleError: If a constant or an operation is damaged.
        """
        self._folder = folder
        self.inputs = dict(source.inputs)
        constants = Constants(folder, taken=self.inputs)
        operations: list[Any] = []
        for operation in source.block.operations:
            if is_constant(operation):
                constants.add(operation)
            else:
                operations.append(operation)
        outputs = tuple(source.block.outputs)
        constants.keep_only({*outputs, *(name for item in operations for name in _reads(item))})
        planner = Planner(folder, constants, self.inputs)
        self._steps = [
            planner.plan(operation, freed)
            for operation, freed in _with_freed(operations, {*outputs, *constants.values})
        ]
        try:
            self._sources = {name: planner.source(name) for name in outputs}
        except FAILURES as exc:
            raise folder.damaged(f"has an output that is no tensor: {exc}") from exc
        self.outputs = {name: planner.type_of(name) for name in outputs}
        kinds = [*self.inputs.values(), *(x.kind for step in self._steps for x in step.results)]
        self._fixed = all(ANY not in kind.shape for kind in kinds)
        self._bounded = False

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Evaluate once.

        Args:
            given: One tensor for each of `inputs`, of the types that `binding.HELD` names.

        Returns:
            One tensor for each of `outputs`, likewise.

        Raises:
            BundleError: If an operation cannot be evaluated, or makes something else than its type
                says.
        """
        values = {name: given[name] for name in self.inputs}
        # Where every shape is fixed, what was of a size once is of that size again.
        known = self._fixed and self._bounded
        with contextlib.nullcontext() if known else BoundedTensors():
            for step in self._steps:
                self._run_step(step, values)
        self._bounded = True
        return {name: _find(source, values) for name, source in self._sources.items()}

    def _run_step(self, step: Step, values: dict[str, Tensor]) -> None:
        try:
            made = _compute(step, values)
            for result, value in zip(step.results, made, strict=True):
                values[result.name] = _stored(result, value)
        except FAILURES as exc:
            raise self._failed(step, exc) from exc
        for name in step.freed:
            del values[name]

    def _failed(self, step: Step, exc: BaseException) -> BundleError:
        said = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        name = step.results[0].name if step.results else ""
        return self._folder.damaged(f"cannot be evaluated at {step.type} {quoted(name)}: {said}")


def _compute(step: Step, values: Mapping[str, Tensor]) -> Sequence[Tensor]:
    given = dict(step.fixed)
    for parameter, sources in step.bound:
        if parameter.kind == "tensors":
            given[parameter.name] = tuple(_find(source, values) for source in sources)
            continue
        value = _find(sources[0], values)
        given[parameter.name] = (
            value if parameter.kind == "tensor" else as_number(parameter.kind, value)
        )
    made = step.compute(**given)
    return made if isinstance(made, tuple | list) else (made,)


def _find(source: str | Tensor, values: Mapping[str, Tensor]) -> Tensor:
    return values[source] if isinstance(source, str) else widened(source)


def _stored(result: Result, value: Tensor) -> Tensor:
    """Return a result in the precision of its type.

    Raises:
        ValueError: If it is of another shape.
        TypeError: If it is of another kind, such as a truth in place of a number.
    """
    if not result.kind.fits(tuple(value.shape)):
        raise ValueError(
            f"it makes {tuple(value.shape)[:8]}, its type says {result.kind.shape[:8]}"
        )
    if value.dtype != result.held:
        if _family(value.dtype) != _family(result.held):
            raise TypeError(f"it makes {value.dtype}, its type says {result.kind.dtype}")
        value = value.to(result.held)
    return value if result.rounded is None else value.to(result.rounded).to(result.held)


def _family(dtype: Any) -> str:
    if dtype.is_floating_point:
        return "float"
    return "bool" if str(dtype) == "torch.bool" else "int"


def _reads(operation: Any) -> Iterator[str]:
    for argument in operation.inputs.values():
        for item in argument.arguments:
            if item.WhichOneof("binding") == "name":
                yield item.name


def _with_freed(operations: Sequence[Any], kept: set[str]) -> list[tuple[Any, list[str]]]:
    """Return every operation with the values that nothing reads after it.

    Args:
        operations: In the order in which they run.
        kept: Names that are never freed: outputs and constants.
    """
    seen = set(kept)
    found: list[tuple[Any, list[str]]] = []
    for operation in reversed(operations):
        names = {*_reads(operation), *(item.name for item in operation.outputs)}
        found.append((operation, sorted(names - seen)))
        seen |= names
    return found[::-1]
