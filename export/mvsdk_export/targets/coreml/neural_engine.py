"""What of a Core ML graph the Apple Neural Engine takes: a prediction, by rules.

No Neural Engine is asked: only an MLComputePlan on a device tells where a graph runs. A rule says
that Core ML may put an operation there; whether it does is decided by its cost model too, and an
operation between two that stay outside may well stay with them (docs/neural_engine.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod

from mvsdk.cli.output import format_bytes
from mvsdk.manifest import Delegation, NonDelegated
from mvsdk_export.errors import ExportError
from mvsdk_export.findings import Finding
from mvsdk_export.targets.coreml.neural_engine_rules import (
    GENERATIONS,
    MOST_AXES,
    MOST_CHANNELS,
    RULES,
    Operation,
    Rule,
    TensorFacts,
    last_two,
    most_spatial,
    numbers,
    other_axes,
    tensors,
    why_outside,
)
from mvsdk_export.targets.coreml.spec import CHUNK_BYTES

__all__ = [
    "GENERATIONS",
    "RULES",
    "WORKING_SET_BYTES",
    "Operation",
    "Rule",
    "TensorFacts",
    "check_limits",
    "is_constant",
    "predict_delegation",
]

WORKING_SET_BYTES = 2 << 20
"""Memory on the chip; what does not fit goes through main memory in tiles."""
_SLICE_MOST = 4094
"""Largest number that older engines copy out of the middle of the last axis: they do it in a format
with four bits behind the point, in which 4095 is infinite."""


def predict_delegation(operations: Iterable[Operation], *, chip: str = "A15") -> Delegation:
    """Predict where the operations of a graph run.

    Args:
        operations: Of the whole graph; constants among them are not counted.
        chip: A key of `GENERATIONS`.

    Returns:
        `delegated` are those that the engine takes. The others are listed with the reason, in the
        order of the graph.

    Raises:
        ExportError: If the chip is unknown.
    """
    generation = _generation(chip)
    counted = [operation for operation in operations if not is_constant(operation)]
    outside = tuple(
        NonDelegated(operator=operation.type, name=operation.name, reason=why)
        for operation in counted
        if (why := why_outside(operation, generation))
    )
    return Delegation(
        delegated=len(counted) - len(outside),
        non_delegated=outside,
        basis="rules",
    )


def check_limits(
    operations: Iterable[Operation], *, chip: str = "A15", weight_bytes: int | None = None
) -> tuple[Finding, ...]:
    """Compare a graph with what Core ML and the engine can hold.

    Args:
        operations: Of the whole graph.
        chip: A key of `GENERATIONS`.
        weight_bytes: Size of the weights as stored. None adds up constant operands, which is more
            than that where several operations read one, or where weights are compressed.

    Returns:
        An error is refused by Core ML, a warning costs the engine or results; what is ok may still
        say what is slow. Empty if there is nothing to look at.

    Raises:
        ExportError: If the chip is unknown.
    """
    generation = _generation(chip)
    counted = [operation for operation in operations if not is_constant(operation)]
    every = [(operation, facts) for operation in counted for _, facts in tensors(operation)]
    computed = [(operation, facts) for operation, facts in every if not facts.constant]
    if not computed:
        return ()
    if weight_bytes is None:
        weight_bytes = sum(_bytes(facts) for _, facts in every if facts.constant)
    return (
        _rank_finding(every),
        _axis_finding("of the last two axes", computed, last_two, most_spatial(generation)),
        _axis_finding("of the other axes", computed, other_axes, MOST_CHANNELS),
        _operand_finding(computed),
        _weight_finding(weight_bytes),
        *_slice_findings(counted, generation),
    )


def is_constant(operation: Operation) -> bool:
    """Return whether an operation only holds or unpacks weights."""
    return operation.type == "const" or operation.type.startswith("constexpr_")


def _generation(chip: str) -> int:
    if chip not in GENERATIONS:
        raise ExportError(f"unknown chip {chip!r}; known: {', '.join(GENERATIONS)}")
    return GENERATIONS[chip]


def _bytes(facts: TensorFacts) -> int:
    bits = re.search(r"\d+", facts.dtype)  # bool has none, and takes a byte
    return -(-prod(facts.shape) * (int(bits[0]) if bits else 8) // 8)


def _rank_finding(operands: Sequence[tuple[Operation, TensorFacts]]) -> Finding:
    operation, facts = max(operands, key=lambda item: len(item[1].shape))
    good = len(facts.shape) <= MOST_AXES
    return Finding(
        severity="ok" if good else "error",
        what=f"largest rank, in {operation.type} {operation.name}",
        value=str(len(facts.shape)),
        limit=f"{MOST_AXES} (Core ML)",
        next_step="" if good else "join axes before it and part them after it",
    )


def _axis_finding(
    which: str,
    operands: Sequence[tuple[Operation, TensorFacts]],
    axes: Callable[[TensorFacts], tuple[int, ...]],
    most: int,
) -> Finding:
    operation, facts = max(operands, key=lambda item: max(axes(item[1]), default=0))
    longest = max(axes(facts), default=0)
    return Finding(
        severity="ok" if longest <= most else "warning",
        what=f"longest {which}, in {operation.type} {operation.name}",
        value=str(longest),
        limit=f"{most} (Neural Engine)",
        next_step="" if longest <= most else "it leaves the Neural Engine: part the axis in two",
    )


def _operand_finding(operands: Sequence[tuple[Operation, TensorFacts]]) -> Finding:
    operation, facts = max(operands, key=lambda item: _bytes(item[1]))
    size = _bytes(facts)
    return Finding(
        severity="ok",
        what=f"largest operand, in {operation.type} {operation.name}",
        value=format_bytes(size),
        limit=f"{format_bytes(WORKING_SET_BYTES)} (Neural Engine, on the chip)",
        next_step="" if size <= WORKING_SET_BYTES else "it goes through main memory and is slower",
    )


def _weight_finding(weight_bytes: int) -> Finding:
    good = weight_bytes <= CHUNK_BYTES
    return Finding(
        severity="ok" if good else "warning",
        what="weights of the graph",
        value=format_bytes(weight_bytes),
        limit=f"{CHUNK_BYTES / 1e9:g} GB (Neural Engine of a phone)",
        next_step="" if good else "all of it may run on the CPU: cut the graph or compress weights",
    )


def _slice_findings(operations: Sequence[Operation], generation: int) -> Iterator[Finding]:
    """Warn of slices that an engine up to H14 copies in a format of its own."""
    hit = [operation for operation in operations if _shifts_width(operation)]
    if not hit or generation > 14:
        return
    yield Finding(
        severity="warning",
        what=f"slices that start within the last axis, as {hit[0].type} {hit[0].name}",
        value=str(len(hit)),
        limit=f"numbers up to {_SLICE_MOST} in them (Neural Engine up to A15 and M2)",
        next_step="slice another axis if larger ones can occur: they become infinite",
    )


def _shifts_width(operation: Operation) -> bool:
    if operation.type not in ("slice_by_index", "slice_by_size"):
        return False
    begin, ignored = numbers(operation, "begin"), numbers(operation, "begin_mask")
    return bool(begin and begin[-1]) and not (ignored and ignored[-1])
