"""The bank of the text-to-video model: clips, and the scenes that they show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.sticker.pictures import Layout
from mvsdk_export.training.data.banks import BANK_BATCH, Bank
from mvsdk_export.training.data.captions import BACKGROUNDS, MOTIONS, SIZES, Scene
from mvsdk_export.training.data.clips import CHANCES, Layer, StickerClips
from mvsdk_export.training.methods.autoencoder import to_network
from mvsdk_export.training.sticker.choices import background_choice

SLOTS = 2
"""Subjects of a scene, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBank(Bank):
    """Encoded clips and the scenes that they show."""

    scenes: NDArray[np.int64]
    """(N, 5): subject, partner or -1, indices into MOTIONS, BACKGROUNDS and SIZES."""
    chances: NDArray[np.float32]
    """(N, CHANCES) in [0, 1]: what drawing left to chance."""

    def choices(
        self, chosen: NDArray[np.int64], named: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return what the noise of clips has to decide, for `impose_choices`.

        Args:
            chosen: Clips, (B,).
            named: Whether a caption names the background, (B,).
            rng: Decides which of the numbers that choose a background it is.

        Returns:
            Uniforms `(B, CHOICES)`, and which of them are open.
        """
        within = rng.random(len(chosen))
        colour = background_choice(self.scenes[chosen, 3], within)
        uniforms = np.column_stack([colour, self.chances[chosen]]).clip(1e-4, 1 - 1e-4)
        is_open = np.ones(uniforms.shape, bool)
        is_open[:, 0] = ~named
        return torch.from_numpy(uniforms), torch.from_numpy(is_open)

    def layouts(self, clips: StickerClips, chosen: NDArray[np.int64]) -> Layout:
        """Return where the sprites of clips are; `layout_loss` says what stands for what."""
        drawn = [
            # With one phase the generator decides nothing.
            clips.layers(
                self.scene(int(i)), self.chances[i].astype(np.float64), np.random.default_rng(0)
            )
            for i in chosen
        ]
        frames = clips.options.frames
        boxes = np.zeros((len(chosen), frames, SLOTS, 4), np.float32)
        orientations = np.zeros((len(chosen), frames, SLOTS), np.int64)
        for row, layers in enumerate(drawn):
            for slot, layer in enumerate(layers):
                boxes[row, :, slot], orientations[row, :, slot] = layout_of(layer)
        return Layout(torch.from_numpy(boxes), torch.from_numpy(orientations))

    def scene(self, index: int) -> Scene:
        """Return what clip `index` shows."""
        subject, partner, motion, background, size = (int(x) for x in self.scenes[index])
        return Scene(
            subject=subject,
            partner=None if partner < 0 else partner,
            motion=MOTIONS[motion],
            background=list(BACKGROUNDS)[background],
            size=list(SIZES)[size],
        )


def layout_of(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the boxes `(F, 4)` and the turns `(F,)` of a layer, as `Layout` spells them.

    A turn by quarters is a transpose and mirrored sides; what is left of it is the turn.
    """
    frames = len(layer.angles)
    turns = max(1, frames // 4)
    steps = np.rint(-layer.angles / 90.0 * turns).astype(np.int64)
    quarters, rest = steps // turns % 4, steps % turns
    mirrored_x = np.where(np.isin(quarters, (1, 2)), -1.0, 1.0)
    mirrored_y = np.where(np.isin(quarters, (2, 3)), -1.0, 1.0)
    boxes = np.stack(
        [
            layer.centres[:, 0] - 0.5,
            layer.scales[:, 0] * mirrored_x,
            layer.centres[:, 1] - 0.5,
            layer.scales[:, 1] * mirrored_y,
        ],
        axis=1,
    )
    return boxes, 2 * rest + quarters % 2


def draw_bank(
    clips: StickerClips, autoencoder: Autoencoder, *, count: int, seed: int
) -> Iterator[LatentBank]:
    """Draw and encode clips.

    Args:
        clips: Draws them.
        autoencoder: Encodes them.
        count: Number of clips.
        seed: Decides scenes, and what drawing leaves to chance.

    Yields:
        The bank in parts of at most `BANK_BATCH` clips.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, count, BANK_BATCH):
        scenes, chances = _draw_scenes(clips, rng, min(BANK_BATCH, count - start))
        latents = _encode(clips, autoencoder, scenes, chances)
        yield LatentBank(latents=latents, scenes=_to_rows(scenes), chances=chances)


def _draw_scenes(
    clips: StickerClips, rng: np.random.Generator, count: int
) -> tuple[list[Scene], NDArray[np.float32]]:
    scenes = [clips.captions.sample_scene(rng) for _ in range(count)]
    return scenes, rng.random((count, CHANCES), np.float32)


def _encode(
    clips: StickerClips,
    autoencoder: Autoencoder,
    scenes: list[Scene],
    chances: NDArray[np.float32],
) -> NDArray[np.float16]:
    # With one phase the generator decides nothing.
    frames = clips.render(scenes, np.random.default_rng(0), chances.astype(np.float64))
    with torch.no_grad():
        encoded = autoencoder.encode(to_network(frames.reshape(-1, *frames.shape[2:])))
    return encoded.half().numpy().reshape(len(scenes), frames.shape[1], *encoded.shape[1:])


def _to_rows(scenes: list[Scene]) -> NDArray[np.int64]:
    colours, sizes = list(BACKGROUNDS), list(SIZES)
    rows = [
        (
            x.subject,
            -1 if x.partner is None else x.partner,
            MOTIONS.index(x.motion),
            colours.index(x.background),
            sizes.index(x.size),
        )
        for x in scenes
    ]
    return np.array(rows, np.int64)
