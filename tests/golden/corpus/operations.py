"""Operations that cases put into programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Operation = dict[str, Any]


def numbers(output: str, *values: object) -> Operation:
    """Return an operation that needs nothing."""
    return {"op": "numbers", "values": list(values) or [0], "output": output}


def looped(
    index: str, operations: Sequence[object], made: str, output: str, *, count: int = 1
) -> Operation:
    """Return a loop that collects `made` of its operations as `output`."""
    joined = {"output": output, "axis": 0, "overlap": 0, "blend": None}
    return {
        "op": "loop",
        "count": count,
        "index": index,
        "carried": {},
        "operations": list(operations),
        "collected": {made: joined},
    }


def linear(output: str, *terms: tuple[str, float | str]) -> Operation:
    """Return the sum of arrays, each times a number or an array of one element."""
    items = [{"array": array, "scale": scale} for array, scale in terms]
    return {"op": "linear", "terms": items, "offset": 0, "output": output}


def take(array: str, output: str, start: object, *, size: int = 1, stride: int = 1) -> Operation:
    """Return what takes places along the first axis."""
    place = {"array": array, "axis": 0, "start": start, "size": size, "stride": stride}
    return {"op": "take", **place, "output": output}


def noise(output: str, shape: Sequence[int], stream: int = 0) -> Operation:
    """Return what draws noise."""
    return {"op": "noise", "stream": stream, "shape": list(shape), "output": output}


def run(component: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Operation:
    """Return what calls a graph: tensor -> array."""
    return {"op": "run", "component": component, "inputs": dict(inputs), "outputs": dict(outputs)}


def carried(start: str, following: str, output: str | None = None) -> dict[str, Any]:
    """Return what one time hands to the next."""
    return {"start": start, "next": following, "output": output}
