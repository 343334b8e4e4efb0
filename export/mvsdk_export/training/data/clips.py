"""Clips drawn from sprites: moving, animated subjects on a plain background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvsdk_export.training.data.captions import (
    BACKGROUNDS,
    MOTIONS,
    SIZES,
    CaptionSampler,
    Scene,
)
from mvsdk_export.training.data.sources import DataError
from mvsdk_export.training.data.sprites import Sprites

CHANCES = 3
"""What drawing leaves to chance: scale, place across, place down."""

ZOOM = (0.5, 1.35)
"""Scale at both ends of a zoom, over the ordinary one."""

THIN = 0.08
"""Least width of a sprite that turns its edge to the viewer, over its own."""

PAIR_SCALE = 0.68
"""Scale of each of two subjects side by side, over that of one."""

_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_SIZE_SCALES = {"normal": 1.0, "small": 0.6, "big": 1.35}
_PAIR_CENTRES = (0.27, 0.73)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """How clips are drawn; lengths are fractions of the frame's side."""

    frames: int = 8
    size: int = 64
    scale: float = 0.7
    """Side of a sprite over the side of the frame."""
    scale_spread: float = 0.06
    """Largest change of the scale by chance, as a share of it."""
    place_spread: float = 0.04
    """Largest change of the place by chance, each way."""
    travel: float = 0.44
    """Way from the first to the last frame; its middle is near the frame's centre."""
    phases: int = 1
    """Different source frames that a clip may start with; 1 starts every loop at its beginning."""

    def __post_init__(self) -> None:
        """Check that there is something to draw."""
        if self.frames < 1 or self.size < 8:
            raise DataError(
                f"clips of {self.frames} frames at {self.size} pixels cannot be drawn; "
                "allowed: at least 1 frame of 8 pixels"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One sprite of a clip, frame by frame."""

    subject: int
    phase: int
    """Source frame that the clip starts with."""
    centres: NDArray[np.float64]
    """(F, 2): x and y, as fractions of the frame."""
    scales: NDArray[np.float64]
    """(F, 2): width and height of the sprite over the frame's side; a negative width mirrors."""
    angles: NDArray[np.float64]
    """(F,): turn against the clock, in degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StickerClips:
    """The sticker data set: an endless stream of clips, decided by the caller's generator."""

    sprites: Sprites
    options: ClipOptions = field(default_factory=ClipOptions)

    @property
    def captions(self) -> CaptionSampler:
        """Scenes and captions of training."""
        return CaptionSampler(subjects=self.sprites.subjects)

    def sample_frames(self, rng: np.random.Generator, n: int) -> NDArray[np.uint8]:
        """Draw clips that training may see.

        Args:
            rng: Source of every choice: equal generators give equal clips.
            n: Number of clips.

        Returns:
            (n, F, H, W, 3) uint8 RGB.
        """
        sampler = self.captions
        return self.render([sampler.sample_scene(rng) for _ in range(n)], rng)

    def scene(
        self, subject: str, *, motion: str = "still", background: str, size: str = "normal"
    ) -> Scene:
        """Name a scene by its words.

        Raises:
            DataError: One of the words is not known.
        """
        if motion not in MOTIONS or background not in BACKGROUNDS or size not in SIZES:
            raise DataError(
                f"no scene is {size!r} and moves {motion!r} on {background!r}; motions: "
                f"{', '.join(MOTIONS)}; backgrounds: {', '.join(BACKGROUNDS)}; "
                f"sizes: {', '.join(SIZES)}"
            )
        index = self.sprites.index(subject)
        return Scene(subject=index, motion=motion, background=background, size=size)

    def render(
        self,
        scenes: Sequence[Scene],
        rng: np.random.Generator,
        chances: NDArray[np.float64] | None = None,
    ) -> NDArray[np.uint8]:
        """Draw scenes.

        Args:
            scenes: What to draw.
            rng: Decides the phase of the loop, and all else that is left to chance.
            chances: (len(scenes), CHANCES) in [0, 1]: scale and place; None asks `rng`.

        Returns:
            (len(scenes), F, H, W, 3) uint8 RGB.
        """
        size, count = self.options.size, self.options.frames
        frames = np.empty((len(scenes), count, size, size, 3), np.uint8)
        for index, scene in enumerate(scenes):
            chance = rng.random(CHANCES) if chances is None else chances[index]
            colour = BACKGROUNDS[scene.background]
            frames[index] = self.composite(colour, self.layers(scene, chance, rng))
        return frames

    def layers(
        self, scene: Scene, chance: NDArray[np.float64], rng: np.random.Generator
    ) -> list[Layer]:
        """Fix where the sprites of a scene are in every frame."""
        options = self.options
        scale_chance, *place_chance = 2.0 * chance - 1.0
        scale = options.scale * _SIZE_SCALES[scene.size]
        scale *= 1.0 + options.scale_spread * scale_chance
        place = options.place_spread * np.array(place_chance)
        if scene.partner is None:
            return [self._layer(scene.subject, scene.motion, place + 0.5, scale, rng)]
        return [
            self._layer(subject, "still", place + np.array((x, 0.5)), PAIR_SCALE * scale, rng)
            for subject, x in zip((scene.subject, scene.partner), _PAIR_CENTRES, strict=True)
        ]

    def _layer(
        self,
        index: int,
        motion: str,
        place: NDArray[np.float64],
        scale: float,
        rng: np.random.Generator,
    ) -> Layer:
        options, subject = self.options, self.sprites.subjects[index]
        count = options.frames
        along = np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1)
        turn = np.arange(count) / count  # a whole turn would end where the next begins
        step = options.travel * np.array(_DIRECTIONS.get(motion, (0, 0)))
        scales = np.full((count, 2), scale)
        angles = np.zeros(count)
        match motion:
            case "zoom in" | "zoom out":
                first, last = ZOOM if motion == "zoom in" else (ZOOM[1], ZOOM[0])
                scales *= np.linspace(first, last, count)[:, None]
            case "flip":
                width = np.cos(2.0 * np.pi * turn)
                scales[:, 0] *= np.where(width < 0, -1.0, 1.0) * np.maximum(np.abs(width), THIN)
            case "spin":
                angles = -360.0 * turn
            case _:
                if {subject.facing, motion} == {"left", "right"}:
                    scales[:, 0] *= -1.0
        total = self.sprites.source_frames
        return Layer(
            subject=index,
            phase=int(rng.integers(options.phases)) * total // options.phases,
            centres=place + along[:, None] * step,
            scales=scales,
            angles=angles,
        )

    def composite(
        self, background: tuple[int, int, int], layers: Sequence[Layer]
    ) -> NDArray[np.uint8]:
        """Draw sprites over a background of one colour, RGB: one clip `(F, H, W, 3)` uint8."""
        size, count = self.options.size, self.options.frames
        colour = np.array(background, np.float32)[:, None, None]
        rgb = np.broadcast_to(colour, (count, 3, size, size))
        for layer in layers:
            rgba = self._resample(layer)
            rgb = rgba[:, :3] + rgb * (1.0 - rgba[:, 3:] * np.float32(1 / 255))
        pixels = np.clip(rgb + np.float32(0.5), 0, 255).astype(np.uint8)
        return pixels.transpose(0, 2, 3, 1)

    def _resample(self, layer: Layer) -> NDArray[np.float32]:
        """Place a sprite in its frames: premultiplied RGBA (F, 4, H, W), 0 to 255."""
        size, count, total = self.options.size, self.options.frames, self.sprites.source_frames
        loop = (layer.phase + np.arange(count) * total // count) % total
        sprite = self.sprites.rgba[layer.subject, loop]  # (F, S, S, 4)
        if layer.angles.any():
            turned = [_rotate(x, a) for x, a in zip(sprite, layer.angles, strict=True)]
            sprite = np.stack(turned)
        sprite = sprite.transpose(0, 3, 1, 2).astype(np.float32, order="C")
        source = sprite.shape[2]
        columns = resampling_matrix(layer.centres[:, 0], layer.scales[:, 0], size, source)
        rows = resampling_matrix(layer.centres[:, 1], layer.scales[:, 1], size, source)
        placed = rows[:, None] @ sprite @ columns[:, None].swapaxes(2, 3)
        return placed.astype(np.float32, copy=False)


def resampling_matrix(
    centres: NDArray[np.float64], scales: NDArray[np.float64], size: int, source: int
) -> NDArray[np.float32]:
    """Build matrices that place a line of source pixels, scaled, onto a line of frame pixels.

    A triangle filter, widened when shrinking so that nothing aliases; zero outside the source.

    Args:
        centres: (F,) centre of the sprite in each frame, as a fraction of the frame.
        scales: (F,) side of the sprite over the side of the frame, not 0; negative mirrors.
        size: Frame pixels on a side.
        source: Sprite pixels on a side.

    Returns:
        (F, size, source) float32; rows wholly inside the sprite sum to 1.
    """
    if len(centres) > 1 and np.ptp(centres) == 0 and np.ptp(scales) == 0:
        one = resampling_matrix(centres[:1], scales[:1], size, source)
        return np.broadcast_to(one, (len(centres), size, source))
    pixel = (size * scales / source)[:, None]  # frame pixels per source pixel
    pixels = np.arange(size) + 0.5
    positions = (pixels[None, :] - centres[:, None] * size) / pixel + source / 2  # (F, size)
    reach = np.maximum(1.0, 1.0 / np.abs(pixel))
    margin = int(np.ceil(reach.max())) + 1
    taps = np.arange(-margin, source + margin) + 0.5
    positions = np.clip(positions, -reach, source + reach)
    weights = np.maximum(0.0, 1.0 - np.abs(positions[..., None] - taps) / reach[..., None])
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights[..., margin:-margin].astype(np.float32)


def _rotate(image: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn a premultiplied RGBA image (S, S, 4) against the clock about its centre."""
    # Plane by plane: Pillow takes an RGBA image for one of straight alpha.
    planes = [
        np.asarray(Image.fromarray(image[..., i]).rotate(degrees, Image.Resampling.BILINEAR))
        for i in range(4)
    ]
    return np.stack(planes, axis=-1)
