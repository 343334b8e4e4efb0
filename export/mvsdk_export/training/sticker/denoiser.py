"""Training of the denoiser: rectified flow that predicts the clean latents.

The autoencoder is finished before, so clips are drawn and encoded once into a bank of latents;
captions are drawn anew every time a clip is seen. Of the text encoder only the table of its memory
goes on learning; what it makes of words stays as it was distilled, or words that no caption holds
would lose their meaning. What a caption leaves open is tied to the noise (`choices.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk.tokenizers import WordPiece
from mvsdk_export.families.sticker.text_encoder import TextEncoder
from mvsdk_export.families.sticker.transformer import (
    Layout,
    SpatioTemporalTransformer,
)
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.loop import LossFunction
from mvsdk_export.training.sticker.bank import LatentBank
from mvsdk_export.training.sticker.choices import impose_choices, remove_choices

PURE_NOISE_SHARE = 0.5
"""Share of training examples at t = 1, where every few-step trajectory starts."""

UNCONDITIONAL_SHARE = 0.05
"""Share of training examples without a caption."""

LAYOUT_WEIGHT = 0.2
"""Weight of the layout's error beside that of the latents."""

BOX_WEIGHT = 100.0
"""Weight of the boxes, in fractions of the frame, beside the cross-entropy of the turns."""

MIN_TIME = 0.05
"""Smallest t in the loss weight 1 / t."""


class TextDenoiser(nn.Module):
    """Text encoder and denoiser; of the former only the table of its memory is trained."""

    def __init__(self, text_encoder: TextEncoder, denoiser: SpatioTemporalTransformer) -> None:
        super().__init__()
        assert text_encoder.memory is not None
        self.text_encoder = text_encoder.requires_grad_(False)
        text_encoder.memory.table.requires_grad_(True)
        self.denoiser = denoiser

    def predict(self, sample: Tensor, timestep: Tensor, input_ids: Tensor) -> tuple[Tensor, Layout]:
        """Predict from noisy latents `(B * F, C, h, w)`, their levels `(B,)` and ids `(B, L)`.

        Returns:
            Clean latents `(B * F, C, h, w)`, and where pictures were laid.
        """
        context = self.text_encoder(input_ids)
        clean, layout = self.denoiser.predict(sample, timestep, context)
        assert layout is not None
        return clean, layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Clips of the bank with captions, and the noise that decides what those leave open."""

    chosen: NDArray[np.int64]
    """Clips of the bank, (B,)."""
    clean: Tensor
    """(B, F, C, h, w) float32."""
    start: Tensor
    """Standard normal, like `clean`."""
    input_ids: Tensor
    """(B, L) int32."""
    is_silent: Tensor
    """Whether a clip has no caption, (B,) boolean."""

    def at(self, times: Tensor) -> Tensor:
        """Return the latents at noise levels `(B,)`: `x_t = (1 - t) x_0 + t eps`."""
        ratio = times[:, None, None, None, None]
        return (1 - ratio) * self.clean + ratio * self.start


def draw_batch(
    bank: LatentBank,
    clips: StickerClips,
    tokenizer: WordPiece,
    count: int,
    rng: np.random.Generator,
    noise: torch.Generator,
    *,
    silent_share: float = 0.0,
) -> Batch:
    """Draw clips, captions and noise for a step of training.

    `silent_share` of the clips have no caption: their noise decides all that it can.
    """
    chosen = rng.integers(len(bank.latents), size=count)
    captions = [clips.captions.caption(bank.scene(int(i)), rng) for i in chosen]
    clean = remove_choices(torch.from_numpy(bank.latents[chosen]).float())
    silent = rng.random(count) < silent_share
    named = np.array([caption.names_background for caption in captions]) & ~silent
    choices, is_open = bank.choices(chosen, named, rng)
    start = torch.randn(clean.shape, generator=noise)
    is_silent = torch.from_numpy(silent)
    input_ids = encode_captions(tokenizer, [caption.text for caption in captions])
    return Batch(
        chosen=chosen,
        clean=clean,
        start=impose_choices(start, choices, is_open=is_open),
        input_ids=torch.where(is_silent[:, None], no_caption(input_ids), input_ids),
        is_silent=is_silent,
    )


def denoiser_loss(
    bank: LatentBank, clips: StickerClips, tokenizer: WordPiece, batch_size: int
) -> LossFunction:
    """Return the loss of a `TextDenoiser` with `prediction_type` "sample".

    Squared error of the predicted `x_0` weighted by 1 / t, t from a logit-normal distribution or 1;
    beside it the error of the layout. Some captions are left out, so that the network can be
    guided.

    Reference:
        Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206 (logit-normal t); Ho
        and Salimans 2022, arXiv:2207.12598 (guidance without a classifier).
    """

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, TextDenoiser)
        batch = draw_batch(
            bank, clips, tokenizer, batch_size, rng, noise, silent_share=UNCONDITIONAL_SHARE
        )
        t = torch.randn(batch_size, generator=noise).sigmoid()
        t = torch.where(
            torch.rand(batch_size, generator=noise) < PURE_NOISE_SHARE, torch.ones(()), t
        )
        # Channels last throughout: every 1x1 convolution leaves this layout anyway.
        sample = batch.at(t).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        clean, layout = network.predict(sample, t, batch.input_ids)
        error = (clean.reshape(batch.clean.shape).float() - batch.clean).square()
        error = error.mean(dim=(1, 2, 3, 4)) / t.clamp(min=MIN_TIME)
        wanted = bank.layouts(clips, batch.chosen)
        wanted.boxes[batch.is_silent] = 0.0
        return error.mean() + LAYOUT_WEIGHT * layout_loss(layout, wanted)

    return loss


def no_caption(input_ids: Tensor) -> Tensor:
    """Return the ids that stand for no caption at all, `(1, L)`: padding."""
    return torch.zeros_like(input_ids[:1])


def layout_loss(layout: Layout, wanted: Layout) -> Tensor:
    """Return the error of a layout; slots that show nothing (width 0) do not count.

    Args:
        layout: As predicted.
        wanted: Boxes, and the places of the right turns `(B, F, slots)` int64.
    """
    boxes, orientations = layout.boxes.float(), layout.orientations.float()
    shown = (wanted.boxes[..., 1] != 0).float()
    error = F.smooth_l1_loss(boxes, wanted.boxes, reduction="none", beta=0.1).mean(dim=-1)
    wrong = F.cross_entropy(
        orientations.flatten(0, 2), wanted.orientations.flatten(), reduction="none"
    )
    return ((BOX_WEIGHT * error + wrong.reshape(shown.shape)) * shown).sum() / shown.sum().clamp(
        min=1
    )


def encode_captions(tokenizer: WordPiece, captions: list[str]) -> Tensor:
    """Return the token ids of captions, `(B, L)` int32."""
    return torch.from_numpy(np.concatenate([tokenizer.encode(text).ids for text in captions]))
