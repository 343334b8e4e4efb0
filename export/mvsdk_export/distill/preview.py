"""Clips from runs that need not be finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvsdk_export.distill.measures import Frames, generate_clips
from mvsdk_export.distill.recipe import STICKER_TRAINING, TrainingRecipe
from mvsdk_export.distill.stages import load_networks


def preview(
    work: Path,
    prompts: Sequence[str],
    steps: int = 4,
    seed: int = 0,
    recipe: TrainingRecipe = STICKER_TRAINING,
) -> Frames:
    """Make clips with the weights that a work folder holds now.

    Args:
        work: Work folder of the training.
        prompts: N descriptions.
        steps: Steps of the sampler.
        seed: Seed of every clip.
        recipe: What is trained there.

    Returns:
        (N, F, H, W, 3) uint8 RGB.

    Raises:
        TrainingError: If a network has no state yet, or one of another recipe.
        InputError: If a prompt is empty or too long.
    """
    return generate_clips(
        load_networks(recipe, work),
        prompts,
        num_inference_steps=steps,
        seeds=[seed] * len(prompts),
        size=recipe.clips.size,
    )
