"""Stages that make ExecuTorch programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvsdk.manifest import TensorSpec
from mvsdk_export.quantize.mixed import Feed, outputs_of
from mvsdk_export.targets.executorch.coreml import lower_coreml_delegate
from mvsdk_export.targets.executorch.lowering import lower_xnnpack
from mvsdk_export.targets.executorch.quantized import lower_xnnpack_8bit
from mvsdk_export.targets.subject import Subject, crossing_feeds, open_subject

PROGRAM = "model.pte"


def lower_executorch(
    *,
    model: str,
    subject: Mapping[str, Any],
    delegate: str,
    precision: str,
    deployment_target: str | None,
    target_db: float,
    external_weights: bool,
    etrecord: bool,
    output: Path,
    recorded: str | None = None,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Lower a component to an ExecuTorch program."""
    if delegate == "coreml":
        assert deployment_target is not None
        found = open_subject(model, decoder, subject, pixels=torch.float32)
        borders = _borders(found)
        delegation = lower_coreml_delegate(
            found.network,
            found.inputs,
            output / PROGRAM,
            deployment_target=deployment_target,
            etrecord=etrecord,
        )
        return {"model": PROGRAM, **borders, "delegation": asdict(delegation)}
    options = {"external_weights": external_weights, "etrecord": etrecord}
    found = open_subject(model, decoder, subject, pixels=torch.uint8)
    borders = _borders(found)
    if precision == "fp32":
        delegation = lower_xnnpack(found.network, found.inputs, output / PROGRAM, **options)
        return {"model": PROGRAM, **borders, "delegation": asdict(delegation)}
    assert recorded is not None
    delegation, quantized = lower_xnnpack_8bit(
        found.network,
        found.inputs,
        [_as_taken(feed, found) for feed in crossing_feeds(recorded, subject["component"])],
        output / PROGRAM,
        target_db=target_db,
        **options,
    )
    return {
        "model": PROGRAM,
        **borders,
        "delegation": asdict(delegation),
        **quantized.summary(),
    }


def _as_taken(feed: Feed, found: Subject) -> Feed:
    """Return a recorded call with pixels as the program takes them."""
    return {
        name: value.astype(np.uint8) if found.inputs[name].dtype == torch.uint8 else value
        for name, value in feed.items()
    }


def _borders(found: Subject) -> dict[str, Any]:
    """Return what a program takes and gives."""
    with torch.no_grad():
        given = outputs_of(found.network(*found.inputs.values()))
    tensors = {"inputs": found.inputs, "outputs": dict(zip(found.outputs, given, strict=True))}
    return {
        side: [
            asdict(TensorSpec(name=name, shape=tuple(x.shape), dtype=str(x.dtype)[6:]))  # type: ignore[arg-type]
            for name, x in items.items()
        ]
        for side, items in tensors.items()
    }
