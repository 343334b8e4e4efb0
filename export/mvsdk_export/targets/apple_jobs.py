"""Stages that make packages for Apple's phones: Core ML and Core AI.

What takes seconds to import is imported by what needs it: finishing a package takes no PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

_ENGINES: Mapping[str, str] = {"fused": "coreml", "split_einsum": "coreml_split_einsum"}

PACKAGES: Mapping[str, str] = {
    "text_encoder": "TextEncoder",
    "image_encoder": "ImageEncoder",
    "vae_encoder": "VAEEncoder",
    "unet": "Unet",
    "transformer": "MultiModalDiffusionTransformer",
    "vae_decoder": "VAEDecoder",
}
"""Component -> what existing Swift code calls its package (apple/ml-stable-diffusion); others are
called by their own names."""


def convert_coreml(
    *,
    model: str,
    subject: Mapping[str, Any],
    deployment_target: str,
    attention: Any,
    output: Path,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Convert a component to a float16 Core ML package."""
    import torch

    from mvsdk_export.layers.selection import select_implementations_
    from mvsdk_export.targets.coreml.convert import convert
    from mvsdk_export.targets.subject import open_subject

    found = open_subject(model, decoder, subject, pixels=torch.float16)
    convert(
        select_implementations_(found.network, _ENGINES[attention]),
        found.inputs,
        found.outputs,
        output / _package(subject["component"]),
        deployment_target=deployment_target,
    )
    return {}


def compress_coreml(
    *,
    model: str,
    subject: Mapping[str, Any],
    attention: Any,
    precision: str,
    target_db: float,
    group: int | None,
    package: str,
    recorded: str,
    output: Path,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Compress the weights of a converted component, as recorded calls allow."""
    import torch

    from mvsdk_export.layers.selection import select_implementations_
    from mvsdk_export.targets.coreml.compress import compress_package
    from mvsdk_export.targets.subject import crossing_feeds, open_subject

    found = open_subject(model, decoder, subject, pixels=torch.float32)
    found.network.rounds = False  # type: ignore[assignment]
    name = subject["component"]
    assigned = compress_package(
        Path(package) / _package(name),
        select_implementations_(found.network, _ENGINES[attention]),
        found.inputs,
        crossing_feeds(recorded, name),
        output / _package(name),
        precision=precision,
        target_db=target_db,
        group=group,
    )
    return assigned.summary()


def finish_coreml(
    *, component: str, chunk_bytes: int, package: str, output: Path
) -> dict[str, Any]:
    """Cut a package that is too large, and say what it takes, gives and leaves to the CPU."""
    from mvsdk_export.targets.coreml.finish import finish_package

    source = Path(package) / _package(component)
    report = finish_package(source, output / _package(component), chunk_bytes=chunk_bytes)
    return {
        "model": _package(component),
        "inputs": [asdict(item) for item in report.inputs],
        "outputs": [asdict(item) for item in report.outputs],
        "delegation": asdict(report.delegation),
        "warnings": [asdict(item) for item in report.warnings],
    }


def lower_coreai(
    *,
    model: str,
    subject: Mapping[str, Any],
    precision: Any,
    target_db: float,
    group: int | None,
    output: Path,
    recorded: str | None = None,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Lower a component to a Core AI asset."""
    from mvsdk_export.targets.coreai.lowering import PIXELS, SUFFIX
    from mvsdk_export.targets.coreai.lowering import lower_coreai as lower
    from mvsdk_export.targets.subject import crossing_feeds, open_subject

    name = subject["component"]
    found = open_subject(model, decoder, subject, pixels=PIXELS)
    asset = _stem(name) + SUFFIX
    compressed = recorded is not None
    report = lower(
        found.network,
        found.inputs,
        found.outputs,
        output / asset,
        precision=precision,
        feeds=crossing_feeds(recorded, name) if recorded is not None else (),
        target_db=target_db if compressed else None,
        group=group,
    )
    return {
        "model": asset,
        "inputs": [asdict(item) for item in report.inputs],
        "outputs": [asdict(item) for item in report.outputs],
        **({"delegation": asdict(report.delegation)} if report.delegation is not None else {}),
        **(report.assignment.summary() if report.assignment is not None else {}),
    }


def _package(component: str) -> str:
    return f"{_stem(component)}.mlpackage"


def _stem(component: str) -> str:
    return PACKAGES.get(component) or "".join(
        word.capitalize() for word in re.split("[._-]+", component)
    )
