"""What the denoisers of the image-to-video model minimise: squared error, then a judgement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk.schedules import karras_sigmas
from mvsdk_export.checkpoints.scheduler import EDMScheduler
from mvsdk_export.distill.adversarial import judge
from mvsdk_export.distill.animator.bank import ClipBank
from mvsdk_export.distill.animator.clips import AnimatedClips, move_of
from mvsdk_export.distill.animator.edm import (
    denoise,
    denoising_loss,
    draw_sigmas,
    edm_noise,
    like,
)
from mvsdk_export.distill.animator.networks import (
    MOVE_NAMES,
    AnimatorBase,
    ClipBatch,
    OneStepStudent,
    PictureNames,
    draw_clip_batch,
    encode_pictures,
    look_with,
    predict_with,
)
from mvsdk_export.distill.autoencoder import to_network
from mvsdk_export.distill.loop import LossFunction
from mvsdk_export.networks.vae import Autoencoder

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

GENERATOR_LEVELS = 4
"""Steps of the grid of noise levels from which a student predicts; the last of it is left out."""

GENERATOR_SHARES = (0.6, 0.2, 0.2)
"""How often it predicts from each of them, the noisiest first: that is what a clip is made from.
SF-V has even shares; a training of minutes cannot spend two thirds on what is never used."""

LOOK_SPREAD = (-1.0, 1.0)
"""Mean and deviation of the logarithm of the noise level at which the discriminator looks. SF-V
prints a deviation of -1, which is read as 1."""


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
            _base_sigmas(batch_size, noise),
        )

    return loss


def _base_sigmas(count: int, noise: torch.Generator) -> Tensor:
    hidden = torch.rand(count, generator=noise) < HIDDEN_SHARE
    return torch.where(
        hidden,
        draw_sigmas(count, HIDDEN_SPREAD, noise),
        draw_sigmas(count, BASE_SPREAD, noise),
    )


def one_step_loss(
    bank: ClipBank,
    autoencoder: Autoencoder,
    base: AnimatorBase,
    *,
    scheduler: EDMScheduler,
    batch_size: int,
) -> LossFunction:
    """Return the loss of an `OneStepStudent`: predictions from noise, judged by what the base sees.

    Args:
        bank: Clips.
        autoencoder: Encodes their first frames.
        base: Trained, frozen: encoder of pictures, and backbone of the discriminator.
        scheduler: Gives the noise levels.
        batch_size: Clips of a step.

    Where it differs from SF-V: levels at which the discriminator looks are drawn from a continuous
    distribution, not from a grid of a thousand; all heads are given the image's feature, that level
    and the motion bucket, the spatial ones no index of their frame; students predict from the
    levels in uneven shares (`GENERATOR_SHARES`); the distance has another weight
    (`adversarial.RECONSTRUCTION_WEIGHT`).

    Reference:
        Zhang et al. 2024, arXiv:2406.04324 (SF-V).
    """
    levels = generator_levels(scheduler)

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, OneStepStudent)
        batch = draw_clip_batch(bank, autoencoder, batch_size, rng, noise)
        with torch.no_grad():
            features = encode_pictures(base.image_encoder, batch.pictures).float()
        conditions = batch.conditions(features)
        if network.importance is not None:
            network.importance.redraw_(network.unet, noise)
        sigmas = levels[rng.choice(len(levels), p=GENERATOR_SHARES, size=batch_size)]
        noisy = edm_noise(batch.clean, torch.randn(batch.clean.shape, generator=noise), sigmas)
        looked = draw_sigmas(batch_size, LOOK_SPREAD, noise)
        judged = judge(
            network.heads,
            look_with(base.unet, conditions),
            real=batch.clean,
            fake=denoise(predict_with(network.unet, conditions), noisy, sigmas),
            noise=torch.randn(batch.clean.shape, generator=noise),
            times=looked,
            condition=_what_heads_know(features, looked, batch),
            renoise=edm_noise,
        )
        return judged.total

    return loss


def generator_levels(scheduler: EDMScheduler) -> Tensor:
    """Return the noise levels from which a student predicts in training, the highest first."""
    grid = karras_sigmas(GENERATOR_LEVELS, scheduler.sigma_min, scheduler.sigma_max, scheduler.rho)
    return torch.from_numpy(grid[: len(GENERATOR_SHARES)].astype(np.float32))


def _what_heads_know(features: Tensor, sigmas: Tensor, batch: ClipBatch) -> Tensor:
    """Return the condition of the heads, `(B, D + LOOKS_WIDTH)`."""
    extra: Sequence[Tensor] = (0.25 * sigmas.log(), batch.added_time_ids[:, 1] / 255)
    return torch.cat([features, torch.stack(list(extra), dim=1)], dim=1)
