"""Whether the components of a model folder go together, by their configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvsdk._text import quoted
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families.shapes import config_sizes


def check_agreement(root: Path, configs: Mapping[str, Any]) -> None:
    """Check that tensors which cross between components have one size on both sides."""
    for symbol, fields in config_sizes(configs).items():
        (first, size), *others = fields.items()
        for other, value in others:
            if value != size:
                raise CheckpointError(
                    f"components of {quoted(root)} do not fit: {first} is {size}, "
                    f"{other} is {value}, expected one size {symbol}; use components of one model"
                )


def check_picture(root: Path, denoiser: str, config: Any) -> None:
    """Check that the denoiser takes the latents of a picture beside those of the clip."""
    if config.in_channels != 2 * config.out_channels:
        raise CheckpointError(
            f"{denoiser} of {quoted(root)} takes {config.in_channels} channels and gives "
            f"{config.out_channels}, expected twice as many in as out: a model that begins with a "
            "picture"
        )


_KINDS = {
    7: "enlarges pictures",
    8: "edits pictures, as InstructPix2Pix",
    9: "fills in pictures",
}
"""Channels that a public denoiser takes -> what it does."""


def check_text_alone(root: Path, denoiser: str, config: Any) -> None:
    """Check that the denoiser is told nothing but a text."""
    if config.in_channels != config.out_channels or config.num_class_embeds:
        what = _KINDS.get(config.in_channels, "begins with something else")
        raise CheckpointError(
            f"{denoiser} of {quoted(root)} takes {config.in_channels} channels and gives "
            f"{config.out_channels}, expected as many in as out: it {what}, which is not "
            "supported; choose a model that takes a prompt alone"
        )
