"""Micro-conditioning: the numbers beside the picture that an image-to-video model is told.

The denoiser receives `added_time_ids` = (fps - 1, motion_bucket_id, noise_aug_strength), and the
VAE encoder adds noise of that strength to the picture. A bundle says the defaults; a caller may
choose others for each clip.

Reference:
    Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat, SupportsIndex

from mvsdk.errors import InputError

ADDED_TIME_IDS = "added_time_ids"
"""Input of the denoiser, and key of a manifest's `sampler.conditioning` for its defaults."""
MIN_FPS, MAX_FPS = 1.0, 60.0
MAX_MOTION = 255
MAX_NOISE = 1.0

_BUCKETS = f"allowed: whole numbers from 0 to {MAX_MOTION}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroConditioning:
    """What a clip is made under, besides its first picture."""

    fps: float
    """Frames per second that the clip is made for, 1 to 60."""
    motion: int
    """Motion bucket, 0 (hardly any) to 255."""
    noise_aug_strength: float
    """Noise on the picture, whose pixels go from -1 to 1; 0 to 1. More lets the clip leave it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        checked = {
            "fps": _number("fps", self.fps, MIN_FPS, MAX_FPS),
            "motion": _bucket(self.motion),
            "noise_aug_strength": _number(
                "noise_aug_strength", self.noise_aug_strength, 0.0, MAX_NOISE
            ),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_added_time_ids(cls, values: Sequence[float]) -> MicroConditioning:
        """Read the three numbers that a manifest holds.

        Args:
            values: (fps - 1, motion bucket, noise augmentation strength).

        Raises:
            InputError: If they are not three, or one is out of range.
        """
        if len(values) != 3:
            raise InputError(
                f"added_time_ids has {len(values)} values; allowed: three, "
                "(fps - 1, motion bucket, noise augmentation strength)"
            )
        fps_id, motion, noise = values
        if not float(motion).is_integer():
            raise InputError(f"motion is {motion:g}; {_BUCKETS}")
        return cls(fps=fps_id + 1, motion=int(motion), noise_aug_strength=noise)

    def changed(
        self,
        *,
        fps: float | None = None,
        motion: int | None = None,
        noise_aug_strength: float | None = None,
    ) -> MicroConditioning:
        """Return the same with other values; None keeps the value.

        Raises:
            InputError: If a value is out of range.
        """
        return MicroConditioning(
            fps=self.fps if fps is None else fps,
            motion=self.motion if motion is None else motion,
            noise_aug_strength=(
                self.noise_aug_strength if noise_aug_strength is None else noise_aug_strength
            ),
        )

    def to_added_time_ids(self) -> tuple[float, float, float]:
        """Return (fps - 1, motion bucket, noise augmentation strength), as the denoiser wants."""
        return (self.fps - 1, float(self.motion), self.noise_aug_strength)


def _number(name: str, value: SupportsFloat, low: float, high: float) -> float:
    allowed = f"allowed: {low:g} to {high:g}"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InputError(f"{name} is {value!r}; {allowed}; pass a number") from exc
    if not low <= number <= high:
        raise InputError(f"{name} is {number:g}; {allowed}")
    return number


def _bucket(value: SupportsIndex) -> int:
    try:
        number = operator.index(value)
    except TypeError as exc:
        raise InputError(f"motion is {value!r}; {_BUCKETS}; pass an int") from exc
    if not 0 <= number <= MAX_MOTION:
        raise InputError(f"motion is {number}; {_BUCKETS}")
    return number
