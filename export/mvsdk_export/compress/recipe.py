"""Order and defaults of a compression. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mvsdk._text import quoted
from mvsdk.errors import InputError
from mvsdk_export.errors import CompressionError

Step = Literal["fold", "frames", "prune", "funnels"]
STEPS: tuple[Step, ...] = get_args(Step)
"""Every step, in the order of the paper; steps left out do not change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionRecipe:
    """What is done to a denoiser, and how much of it."""

    name: str
    steps: tuple[Step, ...] = STEPS
    frame_levels: int = 1
    """Levels that keep all frames, from the finest on; the others have half of them."""
    frame_down: str = "mean"
    frame_up: str = "repeat"
    pruned_share: float = 0.7
    """Share of the temporal blocks that is left out, unless `keep` says how many stay."""
    keep: int | None = None
    """Temporal blocks that stay; None follows `pruned_share`, or a trained importance."""
    funnel_factor: float = 0.5
    """Width of the heads of self-attention, over what it was."""
    funnel_layers: str = "spatial"

    def kept(self, blocks: int) -> int:
        """Return how many of so many temporal blocks stay."""
        return blocks - round(self.pruned_share * blocks) if self.keep is None else self.keep


MOBILEVD = CompressionRecipe(name="mobilevd")
"""The chain of the paper. Where the frames are halved, and how, it does not say: pairs are averaged
after the finest level and repeated before it on the way up, which gives the paper's FLOPs."""

COMPRESSIONS: dict[str, CompressionRecipe] = {recipe.name: recipe for recipe in (MOBILEVD,)}


def find_compression(name: str) -> CompressionRecipe:
    """Return the compression of that name.

    Raises:
        CompressionError: No compression has that name.
    """
    if name not in COMPRESSIONS:
        raise CompressionError(
            f"unknown compression {quoted(name)}; known: {', '.join(sorted(COMPRESSIONS))}"
        )
    return COMPRESSIONS[name]


def read_compression_steps(text: str) -> tuple[Step, ...]:
    """Read names of steps, commas between, in whatever order; they are done in that of `STEPS`.

    Raises:
        InputError: If one is not known.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in STEPS:
            raise InputError(f"unknown step {quoted(word)}; known: {', '.join(STEPS)}")
    return tuple(step for step in STEPS if step in words)
