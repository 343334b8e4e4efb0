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

ANIMATOR_TRAINED: tuple[AnimatorStage, ...] = (
    "image_encoder",
    "base",
    "one_step",
    "frames",
    "importance",
    "prune",
    "funnels",
)
"""Those that train a network."""

CHAIN: tuple[AnimatorStage, ...] = ANIMATOR_TRAINED[2:]
"""Those that compress the base's network, or finetune what was compressed: one step each."""
