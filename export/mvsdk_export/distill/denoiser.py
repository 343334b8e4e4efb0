"""Training of the denoiser: rectified flow that predicts the clean latents.

The autoencoder is finished before, so clips are drawn and encoded once into a bank of latents;
captions are drawn anew every time a clip is seen. The text encoder goes on learning along with the
denoiser: features distilled from sentences alone hardly tell "left" from "right". What a caption
leaves open is tied to the noise (`choices.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk.tokenizer import WordPiece
from mvsdk_export.distill.bank import LatentBank
from mvsdk_export.distill.choices import impose_choices, remove_choices
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.loop import LossFunction
from mvsdk_export.networks.text_encoder import TextEncoder
from mvsdk_export.networks.transformer import (
    Layout,
    SpatioTemporalTransformer,
)

PURE_NOISE_SHARE = 0.5
"""Share of training examples at t = 1, where every few-step trajectory starts."""

UNCONDITIONAL_SHARE = 0.05
"""Share of training examples without a caption."""

LAYOUT_WEIGHT = 0.2
"""Weight of the layout's error beside that of the latents."""

BOX_WEIGHT = 100.0
"""Weight of the boxes, in fractions of the frame, beside the cross-entropy of the turns."""

NAMES_WEIGHT = 0.05
"""Weight of the memory's cross-entropy beside the error of the latents."""

MIN_TIME = 0.05
"""Smallest t in the loss weight 1 / t."""


class TextDenoiser(nn.Module):
    """Text encoder and denoiser, trained as one network."""

    def __init__(self, text_encoder: TextEncoder, denoiser: SpatioTemporalTransformer) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.denoiser = denoiser

    def predict(self, sample: Tensor, timestep: Tensor, input_ids: Tensor) -> Prediction:
        """Predict from noisy latents `(B * F, C, h, w)`, their levels `(B,)` and ids `(B, L)`."""
        context, names = self.read(input_ids)
        clean, layout = self.denoiser.predict(sample, timestep, context)
        assert layout is not None
        return Prediction(clean=clean, layout=layout, names=names)

    def read(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return text features `(B, S, D)` and the names in them `(B, slots, subjects + 1)`."""
        memory = self.text_encoder.memory
        assert memory is not None
        features = self.text_encoder.encode(input_ids)
        names = memory.find(features)
        return torch.cat([features, memory(names)], dim=1), names


class Prediction(NamedTuple):
    """What the networks make of noisy latents and a caption."""

    clean: Tensor
    """(B * F, C, h, w)."""
    layout: Layout
    names: Tensor
    """(B, slots, subjects + 1): logits of the subjects that the caption names."""


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
) -> Batch:
    """Draw clips, captions and noise for a step of training."""
    chosen = rng.integers(len(bank.latents), size=count)
    captions = [clips.captions.caption(bank.scene(int(i)), rng) for i in chosen]
    clean = remove_choices(torch.from_numpy(bank.latents[chosen]).float())
    named = np.array([caption.names_background for caption in captions])
    choices, is_open = bank.choices(chosen, named, rng)
    start = torch.randn(clean.shape, generator=noise)
    return Batch(
        chosen=chosen,
        clean=clean,
        start=impose_choices(start, choices, is_open=is_open),
        input_ids=encode_captions(tokenizer, [caption.text for caption in captions]),
    )


def denoiser_loss(
    bank: LatentBank, clips: StickerClips, tokenizer: WordPiece, batch_size: int
) -> LossFunction:
    """Return the loss of a `TextDenoiser` with `prediction_type` "sample".

    Squared error of the predicted `x_0` weighted by 1 / t, t from a logit-normal distribution or 1;
    beside it the errors of the layout and of the names that the memory found. Some captions are
    left out, so that the network can be guided.

    Reference:
        Liu et al. 2022, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206 (logit-normal t); Ho
        and Salimans 2022, arXiv:2207.12598 (guidance without a classifier).
    """

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, TextDenoiser)
        batch = draw_batch(bank, clips, tokenizer, batch_size, rng, noise)
        t = torch.randn(batch_size, generator=noise).sigmoid()
        t = torch.where(
            torch.rand(batch_size, generator=noise) < PURE_NOISE_SHARE, torch.ones(()), t
        )
        unnamed = rng.random(batch_size) < UNCONDITIONAL_SHARE
        silent = torch.from_numpy(unnamed)
        ids = torch.where(silent[:, None], no_caption(batch.input_ids), batch.input_ids)
        # Channels last throughout: every 1x1 convolution leaves this layout anyway.
        sample = batch.at(t).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        found = network.predict(sample, t, ids)
        error = (found.clean.reshape(batch.clean.shape).float() - batch.clean).square()
        error = error.mean(dim=(1, 2, 3, 4)) / t.clamp(min=MIN_TIME)
        nobody = found.names.shape[2] - 1
        named = np.where(unnamed[:, None], -1, bank.scenes[batch.chosen, :2])
        wanted = bank.layouts(clips, batch.chosen)
        wanted.boxes[silent] = 0.0
        return (
            error.mean()
            + NAMES_WEIGHT * names_loss(found.names, named_subjects(named, nobody))
            + LAYOUT_WEIGHT * layout_loss(found.layout, wanted)
        )

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


def named_subjects(scenes: NDArray[np.int64], nobody: int) -> Tensor:
    """Return the memory's entry for each slot, `(B, 2)`: subject, then partner or `nobody`."""
    return torch.from_numpy(np.where(scenes < 0, nobody, scenes))


def names_loss(logits: Tensor, subjects: Tensor) -> Tensor:
    """Return the cross-entropy of `SubjectMemory.find` `(B, slots, subjects + 1)`."""
    return F.cross_entropy(logits.flatten(0, 1).float(), subjects.flatten())


def encode_captions(tokenizer: WordPiece, captions: list[str]) -> Tensor:
    """Return the token ids of captions, `(B, L)` int32."""
    return torch.from_numpy(np.concatenate([tokenizer.encode(text) for text in captions]))
