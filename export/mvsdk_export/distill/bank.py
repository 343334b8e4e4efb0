"""The bank of latents: clips that are drawn and encoded once, and seen over and over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvsdk._staging import replacing
from mvsdk_export.distill.autoencoder import to_network
from mvsdk_export.distill.captions import BACKGROUNDS, MOTIONS, SIZES, Scene
from mvsdk_export.distill.choices import background_choice
from mvsdk_export.distill.clips import CHANCES, Layer, StickerClips
from mvsdk_export.distill.options import TrainingError
from mvsdk_export.networks.pictures import Layout
from mvsdk_export.networks.vae import Autoencoder

SLOTS = 2
"""Subjects of a scene, at most."""

BANK_BATCH = 64
"""Clips that are drawn together when a bank is made; it decides which ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBank:
    """Encoded clips and the scenes that they show."""

    latents: NDArray[np.float16]
    """(N, F, C, h, w)."""
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


def save_bank(parts: Sequence[LatentBank], path: Path) -> None:
    """Write a bank, whole or not at all."""
    arrays = {
        # Encoded latents lie in memory as the convolution left them, and safetensors writes memory
        # as it lies.
        "latents": np.ascontiguousarray(np.concatenate([part.latents for part in parts])),
        "scenes": np.concatenate([part.scenes for part in parts]),
        "chances": np.concatenate([part.chances for part in parts]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        safetensors.numpy.save_file(arrays, temporary)


def read_bank(path: Path) -> LatentBank:
    """Read a bank that `save_bank` wrote.

    Raises:
        TrainingError: If the file is damaged.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        return LatentBank(**{key: arrays[key] for key in ("latents", "scenes", "chances")})
    except (safetensors.SafetensorError, OSError, KeyError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; remove it and run again") from exc


def check_bank(
    bank: LatentBank, clips: StickerClips, autoencoder: Autoencoder, *, count: int, seed: int
) -> None:
    """Check by its length and its first clips that `draw_bank` would make this bank.

    Raises:
        TrainingError: If it is of other clips or of another autoencoder.
    """
    rng = np.random.default_rng(seed)
    scenes, chances = _draw_scenes(clips, rng, min(BANK_BATCH, count))
    first = _encode(clips, autoencoder, scenes[:4], chances[:4])
    if (
        len(bank.scenes) != count
        or not np.array_equal(bank.scenes[: len(scenes)], _to_rows(scenes))
        or bank.latents.shape[1:] != first.shape[1:]
        or not np.allclose(bank.latents[: len(first)], first, rtol=4e-3, atol=2e-2)
    ):
        raise TrainingError(
            f"the latent bank of {len(bank.scenes)} clips is of other clips, subjects or another "
            f"autoencoder than the {count} clips asked for; choose another work folder, or remove "
            "the bank and what was trained on it"
        )


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
