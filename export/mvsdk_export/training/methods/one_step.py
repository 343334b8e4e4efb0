"""Adversarial finetuning to one step, of any denoiser of the family of Stable Video Diffusion.

A student predicts clean latents from noise; heads on the levels of the frozen denoiser that it came
from judge them. `train` of `loop.py` minimises this loss, by one process or several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mvsdk.schedules import karras_sigmas
from mvsdk_export.checkpoints.scheduler import EDMScheduler
from mvsdk_export.compress.importance import TemporalImportance
from mvsdk_export.families.svd.transformer import SingleTokenCrossAttention
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.layers.transformer import SelfAttention
from mvsdk_export.training.loop import LossFunction
from mvsdk_export.training.methods.adversarial import RECONSTRUCTION_WEIGHT, Backbone, Heads, judge
from mvsdk_export.training.methods.edm import (
    Network,
    coefficients_of,
    denoise,
    draw_sigmas,
    edm_noise,
    like,
)

GENERATOR_LEVELS = 4
"""Steps of the grid of noise levels from which a student predicts; the last of it is left out."""

GENERATOR_SHARES = (0.6, 0.2, 0.2)
"""How often it predicts from each of them, the noisiest first: that is what a clip is made from.
SF-V has even shares; a training of minutes cannot spend two thirds on what is never used."""

LOOK_SPREAD = (-1.0, 1.0)
"""Mean and deviation of the logarithm of the noise level at which the discriminator looks. SF-V
prints a deviation of -1, which is read as 1."""

LOOKS_WIDTH = 2
"""Numbers beside the image feature that the heads are given: noise level and motion bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a denoiser is given beside noisy latents, for B clips."""

    features: Tensor
    """Of the pictures, `(B, 1, D)` float32."""
    image_latents: Tensor
    """Of the pictures with a little noise on them, `(B, C, h, w)` float32."""
    added_time_ids: Tensor
    """`(B, 3)` float32: frames per second less one, motion bucket, noise on the picture."""


Draw = Callable[[np.random.Generator, torch.Generator], tuple[Tensor, Conditions]]
"""(generator for data, generator for noise) -> clean latents `(B, F, C, h, w)`, conditions."""


class OneStepStudent(nn.Module):
    """A denoiser finetuned to one step, the heads that judge it, and scores of temporal blocks.

    Args:
        unet: The denoiser; compressed or not, with funnels as adaptors or without.
        channels: Channels of the backbone's levels, for the heads.
        feature_width: Channels of the image feature.
        keep: Temporal blocks that are on in every step; None to train no scores.
    """

    def __init__(
        self,
        unet: SVDUNet,
        channels: Sequence[int],
        feature_width: int,
        *,
        keep: int | None = None,
    ) -> None:
        super().__init__()
        self.unet = select_training_implementations_(unet)
        self.heads = Heads(channels, feature_width + LOOKS_WIDTH)
        self.importance = (
            None if keep is None else TemporalImportance(list(unet.temporal_blocks()), keep)
        )


def one_step_loss(
    draw: Draw,
    backbone: SVDUNet,
    *,
    scheduler: EDMScheduler,
    shares: Sequence[float] = GENERATOR_SHARES,
    reconstruction_weight: float = RECONSTRUCTION_WEIGHT,
) -> LossFunction:
    """Return the loss of a `OneStepStudent`: predictions from noise, judged by what the base sees.

    It is computed on the device of the clips, where the networks have to be.

    Args:
        draw: Draws clips and their conditions.
        backbone: The uncompressed denoiser, frozen: backbone of the discriminator.
        scheduler: Gives the noise levels.
        shares: How often the student predicts from each of the `GENERATOR_LEVELS` but the last, the
            noisiest first.
        reconstruction_weight: Of the distance to the clip beside the judgement; 0.1 in SF-V.

    Where it differs from SF-V: levels at which the discriminator looks are drawn from a continuous
    distribution, not from a grid of a thousand; all heads are given the image's feature, that level
    and the motion bucket, the spatial ones no index of their frame; and by default the shares are
    uneven, and the distance has another weight.

    Reference:
        Zhang et al. 2024, arXiv:2406.04324 (SF-V).
    """
    levels = generator_levels(scheduler)

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, OneStepStudent)
        clean, conditions = draw(rng, noise)
        device = clean.device

        def unit_noise() -> Tensor:  # drawn on the CPU: the same on every device
            return torch.randn(clean.shape, generator=noise).to(device)

        if network.importance is not None:
            network.importance.redraw_(network.unet, noise)
        sigmas = levels[rng.choice(len(levels), p=shares, size=len(clean))].to(device)
        noisy = edm_noise(clean, unit_noise(), sigmas)
        looked = draw_sigmas(len(clean), LOOK_SPREAD, noise).to(device)
        judged = judge(
            network.heads,
            look_with(backbone, conditions),
            real=clean,
            fake=denoise(predict_with(network.unet, conditions), noisy, sigmas),
            noise=unit_noise(),
            times=looked,
            condition=_what_heads_know(conditions, looked),
            renoise=edm_noise,
            reconstruction_weight=reconstruction_weight,
        )
        return judged.total

    return loss


def generator_levels(scheduler: EDMScheduler) -> Tensor:
    """Return the noise levels from which a student predicts in training, the highest first."""
    grid = karras_sigmas(GENERATOR_LEVELS, scheduler.sigma_min, scheduler.sigma_max, scheduler.rho)
    return torch.from_numpy(grid[: len(GENERATOR_SHARES)].astype(np.float32))


def _what_heads_know(conditions: Conditions, sigmas: Tensor) -> Tensor:
    """Return the condition of the heads, `(B, D + LOOKS_WIDTH)`."""
    extra = [0.25 * sigmas.log(), conditions.added_time_ids[:, 1] / 255]
    return torch.cat([conditions.features.flatten(1), torch.stack(extra, dim=1)], dim=1)


def select_training_implementations_(unet: SVDUNet) -> SVDUNet:
    """Choose what is fastest here: sequences are so short that a kernel does not pay."""
    for module in unet.modules():
        if isinstance(module, SelfAttention | SingleTokenCrossAttention):
            module.implementation = "batched"
    return unet


def predict_with(unet: SVDUNet, conditions: Conditions) -> Network:
    """Return a denoiser under its conditions, as a function of scaled noisy latents and times."""

    def predict(scaled: Tensor, times: Tensor) -> Tensor:
        output = unet(
            _beside(scaled, conditions), times, conditions.features, conditions.added_time_ids
        )
        return output.float().reshape(scaled.shape)

    return predict


def look_with(unet: SVDUNet, conditions: Conditions) -> Backbone:
    """Return what the levels of a denoiser make of noisy latents `(B, F, C, h, w)`."""

    def look(noisy: Tensor, sigmas: Tensor) -> Sequence[Tensor]:
        c = coefficients_of(sigmas)
        sample = _beside(like(c.into, noisy) * noisy, conditions)
        found = unet.features(sample, c.time, conditions.features, conditions.added_time_ids)
        return [x.float().reshape(len(noisy), frames, x.shape[1], -1) for x, frames in found]

    return look


def _beside(scaled: Tensor, conditions: Conditions) -> Tensor:
    """Put the picture's latents beside those of every frame: `(B * F, 2 C, h, w)`."""
    first = conditions.image_latents[:, None].expand_as(scaled)
    return torch.cat([scaled, first], dim=2).flatten(0, 1)
