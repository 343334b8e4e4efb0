"""Stages that compile ONNX models for a Snapdragon chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mvsdk.devices import find_chipset
from mvsdk_export.jobs.runner import read_result
from mvsdk_export.targets.onnx.jobs import borders_of_whole
from mvsdk_export.targets.snapdragon.qairt import read_qairt_version
from mvsdk_export.targets.subject import CONTEXT, MODEL


def compile_chip(*, source: str, chip: str, float16: bool, output: Path) -> dict[str, Any]:
    """Compile a finished or quantised model, or a part of one, for one Snapdragon chip."""
    from mvsdk_export.targets.snapdragon.compiler import compile_context

    delegation = compile_context(
        Path(source) / MODEL, output / CONTEXT, find_chipset(chip).chip, float16=float16
    )
    found = read_result(Path(source))
    return {
        "inputs": found["inputs"],
        "outputs": found["outputs"],
        "delegation": asdict(delegation),
        "qairt": read_qairt_version(output.glob("*.bin")),
    }


def stitch(
    *, pieces: Sequence[str], inputs: Sequence[str], outputs: Sequence[str], output: Path
) -> dict[str, Any]:
    """Join the compiled parts of a component."""
    from mvsdk_export.targets.snapdragon.compiler import stitch_contexts

    delegation = asdict(
        stitch_contexts(
            [Path(piece) / CONTEXT for piece in pieces], output / CONTEXT, outputs=outputs
        )
    )
    known = {
        (node["operator"], node["name"]): node
        for piece in pieces
        for node in read_result(Path(piece))["delegation"]["non_delegated"]
    }
    delegation["non_delegated"] = [
        known.get((node["operator"], node["name"]), node) for node in delegation["non_delegated"]
    ]
    return {
        **borders_of_whole(pieces, inputs, outputs),
        "delegation": delegation,
        "qairt": read_qairt_version(output.glob("*.bin")),
    }
