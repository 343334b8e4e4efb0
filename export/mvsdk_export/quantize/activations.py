"""Recorded activations: what every network of the reference was given and gave, case by case.

They calibrate quantisation and compression, and artefacts are held to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

CALLS = "calls.npz"
"""File of recorded calls in the folder of a job."""

Arrays = dict[str, NDArray[Any]]
Feed = Mapping[str, NDArray[Any]]
"""Inputs of one call, by name."""


class Recorded(TypedDict):
    """Result of a job that records, beside the file `CALLS`."""

    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One call of one network; for the component `END_TO_END` what came out as the clip."""

    component: str
    case: str
    """Prompt, seed and number of steps."""
    step: int | None
    """Step index, None outside of a sampler's steps."""
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    """By tensor; pixels are not rounded, and 0 to 255."""


def calibration_inputs(folder: Path, component: str, *, whole_pixels: bool = False) -> list[Feed]:
    """Return what a component was called with, each once.

    Args:
        folder: Of the job that recorded.
        component: Name.
        whole_pixels: Give pixels as the whole numbers 0 to 255, in float32; else as a traced
            network takes them, in [0, 1].
    """
    calls = unique(load_calls(folder / CALLS, component))
    if not whole_pixels:
        return [as_real(call.inputs) for call in calls]
    return [
        {
            name: value.astype(np.float32) if value.dtype == np.uint8 else value
            for name, value in call.inputs.items()
        }
        for call in calls
    ]


def as_real(inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return inputs as a traced network takes them: bytes as numbers in [0, 1]."""
    return {
        name: value.astype(np.float32) / np.float32(255) if value.dtype == np.uint8 else value
        for name, value in inputs.items()
    }


def unique(calls: Sequence[Evaluation]) -> list[Evaluation]:
    """Drop calls whose inputs were seen before: step counts share their first evaluation."""
    seen: set[tuple[str, bytes]] = set()
    kept: list[Evaluation] = []
    for call in calls:
        key = (call.component, b"".join(value.tobytes() for value in call.inputs.values()))
        if key not in seen:
            seen.add(key)
            kept.append(call)
    return kept


def save_calls(calls: Sequence[Evaluation], path: Path) -> None:
    """Write calls to an uncompressed .npz without pickles."""
    arrays: Arrays = {}
    for index, call in enumerate(calls):
        head = f"{index}/{call.component}/{'' if call.step is None else call.step}"
        arrays[f"{head}/case"] = np.frombuffer(call.case.encode(), np.uint8)
        for side, values in (("input", call.inputs), ("output", call.outputs)):
            for name, value in values.items():
                arrays[f"{head}/{side}/{name}"] = value
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]


def load_calls(path: Path, component: str | None = None) -> list[Evaluation]:
    """Read calls, of one component or of all."""
    found: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            head, part, step, *rest = key.split("/", 4)
            if component in (None, part):
                empty = {"component": part, "step": step, "input": {}, "output": {}}
                call = found.setdefault(head, empty)
                if rest[0] == "case":
                    call["case"] = file[key]
                else:
                    call[rest[0]][rest[1]] = file[key]
    return [
        Evaluation(
            component=call["component"],
            case=call["case"].tobytes().decode(),
            step=int(call["step"]) if call["step"] else None,
            inputs=call["input"],
            outputs=call["output"],
        )
        for _, call in sorted(found.items(), key=lambda item: int(item[0]))
    ]
