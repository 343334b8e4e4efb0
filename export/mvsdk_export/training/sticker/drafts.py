"""Drafts alone: the pictures that the memory keeps, where a caption wants them, and on what.

Pictures in the wrong place are worse than none, and a network that begins with them learns to look
away. So they are learned before the layers of the denoiser, which are not run: a step costs less.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk.tokenizers import WordPiece
from mvsdk_export.families.autoencoder import PATCH as PIXELS
from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.sticker.pictures import PICTURE_CHANNELS
from mvsdk_export.families.sticker.text_encoder import SubjectMemory
from mvsdk_export.families.sticker.transformer import SpatioTemporalTransformer
from mvsdk_export.training.data.captions import BACKGROUNDS
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.data.sprites import Facing
from mvsdk_export.training.loop import LossFunction
from mvsdk_export.training.methods.autoencoder import to_network
from mvsdk_export.training.sticker.bank import LatentBank
from mvsdk_export.training.sticker.denoiser import (
    MIN_TIME,
    TextDenoiser,
    draw_batch,
    layout_loss,
)

GROUND_WEIGHT = 20.0
"""Weight of the error of what pictures lie on."""

PICTURE_WEIGHT = 100.0
"""Weight of the squared error of the pictures, colour and cover in [0, 1]."""

NOTE_SPREAD = 0.1
"""Standard deviation of the memory's notes before they are learned."""

FACING_NOTE = 8.0
"""What a note begins with of where its subject looks, beside that. Whether a sprite is mirrored
depends on it and on the direction together, and few subjects look anywhere."""


@torch.no_grad()
def fit_memory_(
    memory: SubjectMemory,
    denoiser: SpatioTemporalTransformer,
    clips: StickerClips,
    drawn: Tensor,
    autoencoder: Autoencoder,
) -> float:
    """Set the table of a memory to codes of what its subjects look like, and what decodes them.

    A code holds the principal components of one cell of a picture over all frames of a clip.
    Nobody, the last entry, is transparent.

    Args:
        memory: Its entries are the subjects of `clips`, in order.
        denoiser: Decodes the codes and makes latents of the pictures.
        clips: Name the subjects.
        drawn: What they look like, as `draw_pictures` draws it for this denoiser.
        autoencoder: Whose latents they are.

    Returns:
        Peak signal-to-noise ratio of the decoded pictures, colour and cover, in dB.
    """
    pictures = denoiser.pictures
    assert pictures is not None
    cells, k = pictures.config.picture_cells, pictures.points_per_cell
    n, frames, channels = drawn.shape[:3]
    parts = drawn.float().reshape(n, frames * channels, cells, k, cells, k)
    parts = parts.permute(0, 2, 4, 1, 3, 5)
    parts = parts.reshape(n * cells**2, -1)
    size = pictures.config.code_size
    values, vectors = torch.linalg.eigh(parts.T @ parts / len(parts))
    basis = vectors.flip(1)[:, :size]
    gain = values.flip(0)[:size].clamp(min=1e-8) ** -0.25  # halfway to equal variances
    gain = gain / ((parts @ basis * gain).square().mean() ** 0.5)
    codes = parts @ basis * gain
    decoder = basis / gain
    error = (codes @ decoder.T - parts).square().mean()
    width = memory.table.out_features // memory.tokens
    memory.table.weight.mul_(NOTE_SPREAD / memory.table.weight.std())
    memory.table.weight[:-width, :n] = codes.reshape(n, -1).T
    memory.table.weight[:, n] = 0.0
    for index, subject in enumerate(clips.sprites.subjects):
        facing = get_args(Facing).index(subject.facing)
        memory.table.weight[-width + facing, index] += FACING_NOTE
    pictures.decode.linear.weight.copy_(decoder[:, :, None, None])
    # The encoder is linear, on pixels of [-1, 1]; cover dims each colour of what is behind.
    encoder = 2 * autoencoder.encoder.projection.weight  # (C, 3, 8, 8)
    channels = len(encoder)
    denoiser.pictures_in.weight.zero_()
    for slot in range(pictures.config.memory_slots):
        colour = PICTURE_CHANNELS * slot
        denoiser.pictures_in.weight[:channels, colour : colour + 3] = encoder
        cover = denoiser.pictures_in.weight[channels:, colour + 3].unflatten(0, (3, channels))
        cover.copy_(encoder.transpose(0, 1))
    return float(-10 * torch.log10(error))


def draw_pictures(clips: StickerClips, frames: int, size: int) -> Tensor:
    """Return the sprites as a clip shows them, `(N, F, 4, size, size)` float16 in [0, 1]."""
    total = clips.sprites.source_frames
    loop = np.arange(frames) * total // frames
    rgba = torch.from_numpy(clips.sprites.rgba[:, loop]).permute(0, 1, 4, 2, 3)
    small = [F.interpolate(x.float() / 255, size=(size, size), mode="area") for x in rgba]
    return torch.stack([x.half() for x in small])


def draft_loss(
    bank: LatentBank,
    clips: StickerClips,
    tokenizer: WordPiece,
    autoencoder: Autoencoder,
    drawn: Tensor,
    batch_size: int,
) -> LossFunction:
    """Return the loss by which a `TextDenoiser` learns its pictures, where they lie, and on what.

    Args:
        bank: Clips.
        clips: Write their captions.
        tokenizer: Encodes those.
        autoencoder: Whose latents they are.
        drawn: The pictures that the memory shall keep (`draw_pictures`).
        batch_size: Clips of a step.
    """
    weights = flat_weights(autoencoder)
    wanted_pictures = torch.cat([drawn, torch.zeros_like(drawn[:1])])  # nobody is transparent

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, TextDenoiser)
        batch = draw_batch(bank, clips, tokenizer, batch_size, rng, noise)
        times = torch.rand(batch_size, generator=noise).clamp(min=MIN_TIME)
        context = network.text_encoder(batch.input_ids)
        layout, weighted = network.denoiser.arrange(batch.at(times).flatten(0, 1), times, context)
        subjects = torch.from_numpy(np.append(bank.scenes[batch.chosen, 0], len(drawn)))
        wanted = weights[torch.from_numpy(bank.scenes[batch.chosen, 3])]
        return (
            layout_loss(layout, bank.layouts(clips, batch.chosen))
            + GROUND_WEIGHT * (weighted - wanted[:, None]).square().mean()
            + PICTURE_WEIGHT * _picture_loss(network, wanted_pictures, subjects)
        )

    return loss


def _picture_loss(network: TextDenoiser, wanted: Tensor, subjects: Tensor) -> Tensor:
    """Return the squared error of what the memory keeps of some of its entries `(B,)`."""
    memory, pictures = network.text_encoder.memory, network.denoiser.pictures
    assert memory is not None
    assert pictures is not None
    width = memory.table.out_features // memory.tokens
    found = pictures.decode_codes(memory.table.weight[:-width, subjects].T)
    return (found - wanted[subjects].flatten(0, 1).float()).square().mean()


@torch.no_grad()
def flat_weights(autoencoder: Autoencoder) -> Tensor:
    """Return the weights that lay a draft on each background, `(backgrounds, (DRAFTS + 1) * C)`.

    Colour counts as it is, cover takes away what is behind, and the rest is that itself.
    """
    rows: list[Tensor] = []
    for colour in BACKGROUNDS.values():
        flat = np.full((1, PIXELS, PIXELS, 3), colour, np.uint8)
        latents = autoencoder.encode(to_network(flat)).flatten()
        ones = torch.ones_like(latents)
        rows.append(torch.cat([ones, *(-x / 255 * ones for x in colour), latents]))
    return torch.stack(rows)
