"""What jobs of targets return of the files that they made, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NotRequired, TypedDict

from mvsdk.manifest import TensorSpec

MODEL = "model.onnx"
CONTEXT = "model_ctx.onnx"


class Artefact(TypedDict):
    """A model of a component, or of a part of one: its I/O signature, and what is known of it."""

    inputs: list[dict[str, Any]]
    """As `mvsdk.manifest.TensorSpec`."""
    outputs: list[dict[str, Any]]
    model: NotRequired[str]
    """File or folder that is opened, in the job's folder."""
    delegation: NotRequired[dict[str, Any]]
    """As `mvsdk.manifest.Delegation`."""
    warnings: NotRequired[list[dict[str, str]]]
    """Limits of the phone's processor that the graph is beyond, as `Finding`."""
    qairt: NotRequired[str | None]
    """Version of Qualcomm's libraries that compiled it."""
    memory: NotRequired[list[dict[str, Any]] | None]
    """What the compiler plans for each graph, as `mvsdk.manifest.memory.GraphMemory`."""
    calibration_inputs: NotRequired[int]
    bits: NotRequired[float]
    sqnr_db: NotRequired[float]
    schemes: NotRequired[dict[str, int]]
    """How many weights or layers are stored how."""


class Nothing(TypedDict):
    """The result of a job whose files say all."""


def to_rows(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Return tensors as JSON values."""
    return [asdict(spec) for spec in specs]
