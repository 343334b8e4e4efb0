"""The stages of the image-to-video model: light data, importable without torch."""

from __future__ import annotations

from typing import Literal, get_args

AnimatorStage = Literal[
    "data",
    "latents",
    "image_encoder",
    "base",
    "one_step",
    "frames",
    "importance",
    "prune",
    "funnels",
    "package",
]

ANIMATOR_STAGES: tuple[AnimatorStage, ...] = get_args(AnimatorStage)
"""In the order in which they can be run."""

CHAIN: tuple[AnimatorStage, ...] = ANIMATOR_STAGES[4:-1]
"""Those that compress the base's network, or finetune what was compressed: one step each."""
