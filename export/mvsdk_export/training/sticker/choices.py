"""What a prompt leaves open, decided by the noise.

A few-step sampler has no steps to make up its mind: where a caption leaves something open, the
network sees only noise at its first step, and predicts the average of all that may be meant. So
training couples the two: each open choice is a function of the noise that the clip starts from,
the weight of a pattern in it. Noise stays normal and choices stay as likely as before (but for the
background that training keeps from a subject), so that this is flow matching with a coupling of
data and noise that is not independent. Another seed then decides otherwise, and a single step can
follow it. The patterns alternate in sign from place to place and from frame to frame, in the latent
channels of the faintest detail. Clean latents are kept without a share in them, so that the choices
are the same at every noise level.

Reference:
    Pooladian et al. 2023, arXiv:2304.14772 (flow matching with joint couplings); Tong et al. 2023,
    arXiv:2302.00482.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvsdk_export.families.sticker.choices import choice_signs, without_share
from mvsdk_export.training.data.captions import BACKGROUNDS
from mvsdk_export.training.data.clips import CHANCES

CHOICES = 1 + CHANCES
"""Choices, one pattern each: the background, then what drawing leaves to chance."""


def read_choices(noise: Tensor) -> Tensor:
    """Return the choices that noise makes.

    Args:
        noise: Standard normal `(B, F, C, h, w)`.

    Returns:
        Uniforms in (0, 1), `(B, CHOICES)`.
    """
    return _normal_cdf(_weights(noise))


def impose_choices(noise: Tensor, choices: Tensor, *, is_open: Tensor) -> Tensor:
    """Move noise so that it makes given choices; what else it is stays as it was.

    Args:
        noise: Standard normal `(B, F, C, h, w)`.
        choices: Uniforms in (0, 1), `(B, CHOICES)`.
        is_open: Whether a choice is the noise's to make, `(B, CHOICES)` boolean; where it is not,
            the noise is left alone.

    Returns:
        Standard normal noise, as `choices` are uniform. Like `noise`.
    """
    wanted = torch.special.ndtri(choices.double()).to(noise.dtype)
    change = torch.where(is_open, wanted - _weights(noise), torch.zeros_like(wanted))
    signs = choice_signs(noise.shape[1], noise.shape[3], noise.shape[4], noise.device)
    moved = noise.clone()
    moved[:, :, -CHOICES:] += (
        change[:, None, :, None, None] * signs[None, :, None] / signs.numel() ** 0.5
    )
    return moved


def remove_choices(clean: Tensor) -> Tensor:
    """Return clean latents `(B, F, C, h, w)` without a share in the patterns."""
    frames = clean.shape[1]
    return without_share(clean.flatten(0, 1), frames, CHOICES).reshape(clean.shape)


def background_choice(index: NDArray[np.int64], within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the uniforms that choose backgrounds.

    Args:
        index: Places of the colours in `BACKGROUNDS`.
        within: Uniforms in (0, 1): which of the numbers that choose a colour.
    """
    return (index + within) / len(BACKGROUNDS)


def chosen_background(choice: float) -> str:
    """Return the background that a uniform chooses."""
    names = list(BACKGROUNDS)
    return names[min(int(choice * len(names)), len(names) - 1)]


def _weights(noise: Tensor) -> Tensor:
    """Return the weights of the patterns, scaled to unit variance, `(B, CHOICES)`."""
    signs = choice_signs(noise.shape[1], noise.shape[3], noise.shape[4], noise.device)
    shares = (noise[:, :, -CHOICES:] * signs[None, :, None]).sum(dim=(1, 3, 4))
    return shares / signs.numel() ** 0.5


def _normal_cdf(x: Tensor) -> Tensor:
    return torch.special.ndtr(x.double()).to(x.dtype)
