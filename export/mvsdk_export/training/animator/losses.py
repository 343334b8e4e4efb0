"""What the image encoder and the base of the image-to-video model minimise."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.training.animator.bank import ClipBank
from mvsdk_export.training.animator.clips import AnimatedClips, move_of
from mvsdk_export.training.animator.networks import (
    MOVE_NAMES,
    AnimatorBase,
    PictureNames,
    draw_clip_batch,
    encode_pictures,
)
from mvsdk_export.training.loop import LossFunction
from mvsdk_export.training.methods.autoencoder import to_network
from mvsdk_export.training.methods.edm import denoising_loss, draw_sigmas, like
from mvsdk_export.training.methods.one_step import Conditions, Draw, predict_with

NAMES_NOISE = 0.3
"""Most noise on the pictures from which the encoder learns to name them."""

BASE_SPREAD = (0.7, 1.6)
"""Mean and deviation of the logarithm of noise levels in the base's training, as in that of Stable
Video Diffusion."""

HIDDEN_SHARE = 0.75
"""Share of the clips that the base learns from under noise that hides them (`HIDDEN_SPREAD`). One
step has to know from the picture alone where everything goes, and that is what takes longest to
learn: with levels of (2, 2) for all, nothing had moved after 650 steps."""

HIDDEN_SPREAD = (5.0, 1.0)


def names_loss(bank: ClipBank, clips: AnimatedClips, batch_size: int) -> LossFunction:
    """Return the loss of `PictureNames`: cross-entropy of subjects and of moves.

    Public models begin with an encoder that knows what pictures show. This is what ours has instead
    of millions of captions. Without it, 2400 steps of a base alone taught one subject in ten to
    go where it looks.

    Args:
        bank: Pictures.
        clips: Say how their subjects move.
        batch_size: Pictures of a step.
    """
    subjects = torch.from_numpy(bank.starts[:, 0].astype(np.int64))
    moves = [
        move_of(clips.sprites.subjects[int(subject)], mirrored=bool(mirrored))
        for subject, mirrored in zip(subjects, bank.starts[:, 2], strict=True)
    ]
    wanted = torch.tensor([MOVE_NAMES.index(move) for move in moves])

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, PictureNames)
        chosen = rng.integers(len(bank.starts), size=batch_size)
        pictures = to_network(bank.pictures[chosen])
        strengths = NAMES_NOISE * torch.rand(batch_size, generator=noise)
        added = like(strengths, pictures) * torch.randn(pictures.shape, generator=noise)
        features = encode_pictures(network.image_encoder, pictures + added)
        return F.cross_entropy(network.subject(features), subjects[chosen]) + F.cross_entropy(
            network.move(features), wanted[chosen]
        )

    return loss


def base_loss(bank: ClipBank, autoencoder: Autoencoder, batch_size: int) -> LossFunction:
    """Return the loss of an `AnimatorBase`: denoising at lognormal levels."""

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, AnimatorBase)
        batch = draw_clip_batch(bank, autoencoder, batch_size, rng, noise)
        features = encode_pictures(network.image_encoder, batch.pictures)
        return denoising_loss(
            predict_with(network.unet, batch.conditions(features)),
            batch.clean,
            torch.randn(batch.clean.shape, generator=noise),
            base_sigmas(batch_size, noise),
        )

    return loss


def base_sigmas(count: int, noise: torch.Generator) -> Tensor:
    """Draw the noise levels `(count,)` of a batch of the base."""
    hidden = torch.rand(count, generator=noise) < HIDDEN_SHARE
    return torch.where(
        hidden,
        draw_sigmas(count, HIDDEN_SPREAD, noise),
        draw_sigmas(count, BASE_SPREAD, noise),
    )


def draw_conditions(
    bank: ClipBank, autoencoder: Autoencoder, base: AnimatorBase, batch_size: int
) -> Draw:
    """Return what draws clips for `one_step_loss`.

    Args:
        bank: Clips.
        autoencoder: Encodes their first frames.
        base: Trained, frozen: its encoder says what pictures show.
        batch_size: Clips of a step.
    """

    def draw(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, Conditions]:
        batch = draw_clip_batch(bank, autoencoder, batch_size, rng, noise)
        with torch.no_grad():
            features = encode_pictures(base.image_encoder, batch.pictures).float()
        return batch.clean, batch.conditions(features)

    return draw
