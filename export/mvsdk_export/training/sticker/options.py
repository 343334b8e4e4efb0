"""The stages of the text-to-video model: light data, importable without torch."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal[
    "data",
    "autoencoder",
    "text_encoder",
    "latents",
    "draft",
    "teacher",
    "distillation",
    "adversarial",
    "package",
]

STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they can be run."""
