"""Training of the denoiser: rectified flow that predicts the clean latents.

The autoencoder and the text encoder are finished before, so clips are drawn and encoded once into
a bank of latents; captions are drawn anew every time a clip is seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk.tokenizer import WordPiece
from mvsdk_export.distill.autoencoder import to_network
from mvsdk_export.distill.captions import BACKGROUNDS, MOTIONS, Scene
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.loop import LossFunction, TrainOptions
from mvsdk_export.networks.text_encoder import TextEncoder
from mvsdk_export.networks.vae import Autoencoder

PURE_NOISE_SHARE = 0.25
"""Share of training examples at t = 1, where every few-step trajectory starts."""

MIN_TIME = 0.05
"""Smallest t in the loss weight 1 / t."""


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


def build_bank(
    clips: StickerClips, autoencoder: Autoencoder, path: Path, *, count: int, seed: int = 1
) -> LatentBank:
    """Draw and encode `count` clips, or read them from `path` if they are there."""
    if not path.exists():
        rng = np.random.default_rng(seed)
        latents: list[NDArray[np.float16]] = []
        scenes: list[tuple[int, int, int]] = []
        while len(scenes) < count:
            drawn = [clips.captions.sample_scene(rng) for _ in range(min(64, count - len(scenes)))]
            frames, _ = clips.render(drawn, rng)
            with torch.no_grad():
                encoded = autoencoder.encode(to_network(frames.reshape(-1, *frames.shape[2:])))
            latents.append(
                encoded.half().numpy().reshape(len(drawn), frames.shape[1], *encoded.shape[1:])
            )
            colours = list(BACKGROUNDS)
            scenes += [
                (x.subject, MOTIONS.index(x.motion), colours.index(x.background)) for x in drawn
            ]
        arrays = {"latents": np.concatenate(latents), "scenes": np.array(scenes, np.int64)}
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(arrays, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)
    arrays = safetensors.numpy.load_file(path)
    return LatentBank(latents=arrays["latents"], scenes=arrays["scenes"])


def denoiser_loss(
    bank: LatentBank,
    clips: StickerClips,
    text_encoder: TextEncoder,
    tokenizer: WordPiece,
    options: TrainOptions,
) -> LossFunction:
    """Return the loss of a denoiser with `prediction_type` "sample".

    `x_t = (1 - t) x_0 + t eps`, squared error of the predicted `x_0` weighted by 1 / t, t from a
    logit-normal distribution or 1.

    Reference:
        Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206 (logit-normal t).
    """

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        b = options.batch_size
        chosen = rng.integers(len(bank.latents), size=b)
        captions = [clips.captions.caption(bank.scene(int(i)), rng) for i in chosen]
        with torch.no_grad():
            context = text_encoder(encode_captions(tokenizer, captions))
        clean = torch.from_numpy(bank.latents[chosen]).float()  # (B, F, C, h, w)
        t = torch.randn(b, generator=noise).sigmoid()
        t = torch.where(torch.rand(b, generator=noise) < PURE_NOISE_SHARE, torch.ones(()), t)
        ratio = t[:, None, None, None, None]
        noisy = (1 - ratio) * clean + ratio * torch.randn(clean.shape, generator=noise)
        guess = network(noisy.flatten(0, 1), t, context).reshape(clean.shape)
        error = (guess - clean).square().mean(dim=(1, 2, 3, 4))
        return (error / t.clamp(min=MIN_TIME)).mean()

    return loss


def encode_captions(tokenizer: WordPiece, captions: list[str]) -> Tensor:
    """Return the token ids of captions, `(B, L)` int32."""
    return torch.from_numpy(np.concatenate([tokenizer.encode(text) for text in captions]))
