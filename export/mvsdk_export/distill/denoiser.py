"""Training of the denoiser: rectified flow that predicts the clean latents.

The autoencoder is finished before, so clips are drawn and encoded once into a bank of latents;
captions are drawn anew every time a clip is seen. The text encoder goes on learning along with the
denoiser: features distilled from sentences alone hardly tell "left" from "right".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk._staging import replacing
from mvsdk.tokenizer import WordPiece
from mvsdk_export.distill.autoencoder import to_network
from mvsdk_export.distill.captions import BACKGROUNDS, MOTIONS, Scene
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.loop import LossFunction
from mvsdk_export.distill.options import TrainingError, TrainOptions
from mvsdk_export.networks.text_encoder import TextEncoder
from mvsdk_export.networks.unet import SpatioTemporalUNet
from mvsdk_export.networks.vae import Autoencoder

PURE_NOISE_SHARE = 0.25
"""Share of training examples at t = 1, where every few-step trajectory starts."""

MIN_TIME = 0.05
"""Smallest t in the loss weight 1 / t."""

BANK_BATCH = 64
"""Clips that are drawn together when a bank is made; it decides which ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentBank:
    """Encoded clips and the scenes that they show."""

    latents: NDArray[np.float16]
    """(N, F, C, h, w)."""
    scenes: NDArray[np.int64]
    """(N, 3): subject, index into MOTIONS, index into the BACKGROUNDS."""

    def scene(self, index: int) -> Scene:
        """Return what clip `index` shows."""
        subject, motion, background = (int(x) for x in self.scenes[index])
        return Scene(
            subject=subject, motion=MOTIONS[motion], background=list(BACKGROUNDS)[background]
        )


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
        scenes = _draw_scenes(clips, rng, min(BANK_BATCH, count - start))
        latents = _encode(clips, autoencoder, scenes, rng)
        yield LatentBank(latents=latents, scenes=_to_rows(scenes))


def save_bank(parts: Sequence[LatentBank], path: Path) -> None:
    """Write a bank, whole or not at all."""
    arrays = {
        # Encoded latents lie in memory as the convolution left them, and safetensors writes memory
        # as it lies.
        "latents": np.ascontiguousarray(np.concatenate([part.latents for part in parts])),
        "scenes": np.concatenate([part.scenes for part in parts]),
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
        return LatentBank(latents=arrays["latents"], scenes=arrays["scenes"])
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
    scenes = _draw_scenes(clips, rng, min(BANK_BATCH, count))
    first = _encode(clips, autoencoder, scenes[:4], rng)
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


def _draw_scenes(clips: StickerClips, rng: np.random.Generator, count: int) -> list[Scene]:
    return [clips.captions.sample_scene(rng) for _ in range(count)]


def _encode(
    clips: StickerClips, autoencoder: Autoencoder, scenes: list[Scene], rng: np.random.Generator
) -> NDArray[np.float16]:
    frames, _ = clips.render(scenes, rng)
    with torch.no_grad():
        encoded = autoencoder.encode(to_network(frames.reshape(-1, *frames.shape[2:])))
    return encoded.half().numpy().reshape(len(scenes), frames.shape[1], *encoded.shape[1:])


def _to_rows(scenes: list[Scene]) -> NDArray[np.int64]:
    colours = list(BACKGROUNDS)
    return np.array(
        [(x.subject, MOTIONS.index(x.motion), colours.index(x.background)) for x in scenes],
        np.int64,
    )


class TextDenoiser(nn.Module):
    """Text encoder and denoiser, trained as one network."""

    def __init__(self, text_encoder: TextEncoder, unet: SpatioTemporalUNet) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, input_ids: Tensor) -> Tensor:
        """Predict the clean latents `(B * F, C, h, w)` from noisy ones, `(B,)` and ids `(B, L)`."""
        return self.unet(sample, timestep, self.text_encoder(input_ids))


def denoiser_loss(
    bank: LatentBank, clips: StickerClips, tokenizer: WordPiece, options: TrainOptions
) -> LossFunction:
    """Return the loss of a `TextDenoiser` with `prediction_type` "sample".

    `x_t = (1 - t) x_0 + t eps`, squared error of the predicted `x_0` weighted by 1 / t, t from a
    logit-normal distribution or 1.

    Reference:
        Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206 (logit-normal t).
    """

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        b = options.batch_size
        chosen = rng.integers(len(bank.latents), size=b)
        captions = [clips.captions.caption(bank.scene(int(i)), rng) for i in chosen]
        ids = encode_captions(tokenizer, captions)
        clean = torch.from_numpy(bank.latents[chosen]).float()  # (B, F, C, h, w)
        t = torch.randn(b, generator=noise).sigmoid()
        t = torch.where(torch.rand(b, generator=noise) < PURE_NOISE_SHARE, torch.ones(()), t)
        ratio = t[:, None, None, None, None]
        noisy = (1 - ratio) * clean + ratio * torch.randn(clean.shape, generator=noise)
        # Channels last throughout: every 1x1 convolution leaves this layout anyway.
        sample = noisy.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        guess = network(sample, t, ids).reshape(clean.shape).float()
        error = (guess - clean).square().mean(dim=(1, 2, 3, 4))
        return (error / t.clamp(min=MIN_TIME)).mean()

    return loss


def encode_captions(tokenizer: WordPiece, captions: list[str]) -> Tensor:
    """Return the token ids of captions, `(B, L)` int32."""
    return torch.from_numpy(np.concatenate([tokenizer.encode(text) for text in captions]))
