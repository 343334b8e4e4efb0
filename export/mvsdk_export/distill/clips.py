"""Clips drawn from sprites: a moving, animated subject on a plain background, with its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvsdk_export.distill.captions import (
    BACKGROUNDS,
    HELD_OUT,
    MOTIONS,
    CaptionSampler,
    Scene,
)
from mvsdk_export.distill.sources import DataError
from mvsdk_export.distill.sprites import Sprites

_DIRECTIONS = {"still": (0, 0), "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLabel:
    """What a clip shows, for measuring."""

    subject: str
    """Id of the subject."""
    subject_index: int
    motion: str
    """One of `captions.MOTIONS`."""
    background: str
    """A key of `captions.BACKGROUNDS`."""
    background_rgb: tuple[int, int, int]
    """The exact colour drawn."""
    flipped: bool
    """Whether the sprite was mirrored left to right."""
    scale: float
    """Side of the sprite over the side of the frame."""
    phase: int
    """Source frame that the clip starts with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """How clips are drawn; lengths are fractions of the frame's side."""

    frames: int = 8
    size: int = 64
    scale: float = 0.7
    scale_jitter: float = 0.04
    travel: float = 0.45
    """Way from the first to the last frame; its middle is near the frame's centre."""
    position_jitter: float = 0.03
    phases: int = 1
    """Different source frames that a clip may start with; 1 starts every loop at its beginning."""
    colour_jitter: int = 5
    """Largest change of a background channel, of 255."""

    def __post_init__(self) -> None:
        """Check that there is something to draw."""
        if self.frames < 1 or self.size < 8:
            raise DataError(
                f"clips of {self.frames} frames at {self.size} pixels cannot be drawn; "
                "allowed: at least 1 frame of 8 pixels"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StickerClips:
    """The sticker data set: an endless stream of clips, decided by the caller's generator."""

    sprites: Sprites
    options: ClipOptions = field(default_factory=ClipOptions)

    @property
    def captions(self) -> CaptionSampler:
        """Scenes and captions of training."""
        return CaptionSampler(subjects=self.sprites.subjects)

    def sample_batch(
        self, rng: np.random.Generator, n: int
    ) -> tuple[NDArray[np.uint8], list[str], list[ClipLabel]]:
        """Draw clips that training may see.

        Args:
            rng: Source of every choice: equal generators give equal clips.
            n: Number of clips.

        Returns:
            Frames (n, F, H, W, 3) uint8 RGB, their captions, and what they show.
        """
        sampler = self.captions
        scenes = [sampler.sample_scene(rng) for _ in range(n)]
        captions = [sampler.caption(scene, rng) for scene in scenes]
        frames, labels = self.render(scenes, rng)
        return frames, captions, labels

    def sample_held_out(
        self,
        rng: np.random.Generator,
        n: int,
        *,
        kind: Literal["combination", "wording"] = "combination",
    ) -> tuple[NDArray[np.uint8], list[str], list[ClipLabel]]:
        """Draw clips that training never sees, with captions that say all they show.

        Args:
            rng: Source of every choice.
            n: Number of clips.
            kind: "combination" joins a subject with its held-out direction or background in
                training's words; "wording" describes training's combinations in held-out words.

        Returns:
            As `sample_batch`.
        """
        sampler = self.captions
        if kind == "wording":
            sampler = CaptionSampler(subjects=self.sprites.subjects, wording=HELD_OUT)
        draw = sampler.sample_held_out_scene if kind == "combination" else sampler.sample_scene
        scenes = [draw(rng) for _ in range(n)]
        captions = [sampler.caption(scene, rng, name_everything=True) for scene in scenes]
        frames, labels = self.render(scenes, rng)
        return frames, captions, labels

    def scene(self, subject: str, *, motion: str, background: str) -> Scene:
        """Name a scene by its words.

        Raises:
            DataError: One of the words is not known.
        """
        if motion not in MOTIONS or background not in BACKGROUNDS:
            raise DataError(
                f"no scene moves {motion!r} on {background!r}; motions: {', '.join(MOTIONS)}; "
                f"backgrounds: {', '.join(BACKGROUNDS)}"
            )
        return Scene(subject=self.sprites.index(subject), motion=motion, background=background)

    def render(
        self, scenes: Sequence[Scene], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], list[ClipLabel]]:
        """Draw scenes.

        Args:
            scenes: What to draw.
            rng: Decides size, place, phase of the loop and shade of the background.

        Returns:
            Frames (len(scenes), F, H, W, 3) uint8 RGB and what they show.
        """
        size, count = self.options.size, self.options.frames
        frames = np.empty((len(scenes), count, size, size, 3), np.uint8)
        labels: list[ClipLabel] = []
        for index, scene in enumerate(scenes):
            label, centre = self._place(scene, rng)
            frames[index] = self._draw(label, centre)
            labels.append(label)
        return frames, labels

    def _place(
        self, scene: Scene, rng: np.random.Generator
    ) -> tuple[ClipLabel, NDArray[np.float64]]:
        """Fix everything that is left to chance; return the label and the path (F, 2) in x, y."""
        options, subject = self.options, self.sprites.subjects[scene.subject]
        spread = options.colour_jitter
        shade = np.array(BACKGROUNDS[scene.background]) + rng.integers(-spread, spread + 1, 3)
        red, green, blue = (int(value) for value in np.clip(shade, 0, 255))
        scale = options.scale + options.scale_jitter * rng.uniform(-1.0, 1.0)
        start = 0.5 + options.position_jitter * rng.uniform(-1.0, 1.0, 2)
        along = np.linspace(-0.5, 0.5, options.frames) if options.frames > 1 else np.zeros(1)
        step = options.travel * np.array(_DIRECTIONS[scene.motion])
        label = ClipLabel(
            subject=subject.id,
            subject_index=scene.subject,
            motion=scene.motion,
            background=scene.background,
            background_rgb=(red, green, blue),
            flipped={subject.facing, scene.motion} == {"left", "right"},
            scale=scale,
            phase=int(rng.integers(options.phases)) * self.sprites.source_frames // options.phases,
        )
        return label, start + along[:, None] * step

    def _draw(self, label: ClipLabel, centre: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Composite one clip (F, H, W, 3) from its sprite, resampled by two matrices a frame."""
        size, count = self.options.size, self.options.frames
        total = self.sprites.source_frames
        loop = (label.phase + np.arange(count) * total // count) % total
        sprite = self.sprites.rgba[label.subject_index, loop].transpose(0, 3, 1, 2)  # (F, 4, S, S)
        columns = resampling_matrix(centre[:, 0], label.scale, size, sprite.shape[3])
        rows = resampling_matrix(centre[:, 1], label.scale, size, sprite.shape[2])
        if label.flipped:
            columns = columns[..., ::-1]
        rgba = rows[:, None] @ sprite.astype(np.float32, order="C")  # (F, 4, H, S)
        rgba = rgba @ columns[:, None].swapaxes(2, 3)  # (F, 4, H, W)
        background = np.array(label.background_rgb, np.float32)[:, None, None]
        rgb = rgba[:, :3] + background * (1.0 - rgba[:, 3:] * np.float32(1 / 255))
        np.clip(rgb + np.float32(0.5), 0, 255, out=rgb)
        return rgb.astype(np.uint8).transpose(0, 2, 3, 1)


def resampling_matrix(
    centres: NDArray[np.float64], scale: float, size: int, source: int
) -> NDArray[np.float32]:
    """Build matrices that place a line of source pixels, scaled, onto a line of frame pixels.

    A triangle filter, widened when shrinking so that nothing aliases; zero outside the source.

    Args:
        centres: (F,) centre of the sprite in each frame, as a fraction of the frame.
        scale: Side of the sprite over the side of the frame.
        size: Frame pixels on a side.
        source: Sprite pixels on a side.

    Returns:
        (F, size, source) float32; rows wholly inside the sprite sum to 1.
    """
    pixel = size * scale / source  # frame pixels per source pixel
    if len(centres) > 1 and np.all(centres == centres[0]):
        one = resampling_matrix(centres[:1], scale, size, source)
        return np.broadcast_to(one, (len(centres), size, source))
    pixels = np.arange(size) + 0.5
    positions = (pixels[None, :] - centres[:, None] * size) / pixel + source / 2  # (F, size)
    reach = max(1.0, 1.0 / pixel)
    margin = int(np.ceil(reach)) + 1
    taps = np.arange(-margin, source + margin) + 0.5
    positions = np.clip(positions, -reach, source + reach)
    weights = np.maximum(0.0, 1.0 - np.abs(positions[..., None] - taps) / reach)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights[..., margin:-margin].astype(np.float32)
