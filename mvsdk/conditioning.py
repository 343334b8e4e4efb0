"""Micro-conditioning: the numbers beside the picture that an image-to-video model is told.

The denoiser receives `added_time_ids` = (fps - 1, motion_bucket_id, noise_aug_strength), and the
VAE encoder adds noise of that strength to the picture. A bundle says the defaults; a caller may
choose others for each clip.

Reference:
    Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from mvsdk._arguments import check_number, check_whole_number, shown
from mvsdk.errors import InputError

ADDED_TIME_IDS = "added_time_ids"
"""Input of the denoiser, and key of a manifest's `sampler.conditioning` for its defaults."""
MIN_FPS, MAX_FPS = 1.0, 60.0
MAX_MOTION = 255
MAX_NOISE = 1.0

_FAR = 1e6  # each value has a range of its own, which the class checks
_TRIPLE = "three, (fps - 1, motion bucket, noise augmentation strength)"


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
            "fps": check_number("fps", self.fps, low=MIN_FPS, high=MAX_FPS),
            "motion": check_whole_number("motion", self.motion, low=0, high=MAX_MOTION),
            "noise_aug_strength": check_number(
                "noise_aug_strength", self.noise_aug_strength, low=0.0, high=MAX_NOISE
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
        try:
            numbers = tuple(values)
        except TypeError:
            numbers = ()
        if len(numbers) != 3 or isinstance(cast("object", values), str | bytes):
            has = f"has {len(numbers)} values" if numbers else f"is {shown(values)}"
            raise InputError(f"added_time_ids {has}; allowed: {_TRIPLE}")
        fps_id, motion, noise = (
            check_number("a value of added_time_ids", value, low=-_FAR, high=_FAR)
            for value in numbers
        )
        if not motion.is_integer():
            raise InputError(f"motion is {motion:g}; allowed: whole numbers from 0 to {MAX_MOTION}")
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
