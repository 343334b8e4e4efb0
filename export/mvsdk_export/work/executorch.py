"""Stages that make ExecuTorch programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def lower_executorch(
    *,
    model: str,
    subject: Mapping[str, Any],
    delegate: str,
    precision: str,
    chip: str | None,
    deployment_target: str | None,
    target_db: float,
    external_weights: bool,
    etrecord: bool,
    output: Path,
    recorded: str | None = None,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Lower a component to an ExecuTorch program."""
    raise NotImplementedError
