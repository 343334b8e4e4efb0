"""Denoisers on the variance-exploding path, as Stable Video Diffusion's: v-prediction, unit data.

Noisy latents are `x = x_0 + sigma * noise`. The network F sees `c_in x` at the time `c_noise`, and
`D(x) = c_skip x + c_out F(c_in x, c_noise)` predicts the clean latents.

Reference:
    Karras et al. 2022, arXiv:2206.00364, table 1 and section 5; Blattmann et al. 2023,
    arXiv:2311.15127 (these coefficients: data of unit variance, v-prediction).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvsdk.schedules import karras_sigmas
from mvsdk_export.checkpoints.scheduler import EDMScheduler

Network = Callable[[Tensor, Tensor], Tensor]
"""(scaled noisy latents `(B, ...)`, times `(B,)`) -> model output like the latents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """What stands around the network at noise levels `(B,)`; each `(B,)` float32."""

    skip: Tensor
    out: Tensor
    into: Tensor
    time: Tensor
    """`ln(sigma) / 4`."""


def coefficients_of(sigmas: Tensor) -> Coefficients:
    """Return what stands around the network at noise levels `(B,)` > 0."""
    scale = (sigmas.square() + 1.0).rsqrt()
    return Coefficients(
        skip=scale.square(), out=-sigmas * scale, into=scale, time=0.25 * sigmas.log()
    )


def edm_noise(clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Make latents `(B, ...)` noisy: `x = x_0 + sigma * noise`, with noise levels `(B,)`."""
    return clean + like(sigmas, clean) * noise


def denoise(network: Network, noisy: Tensor, sigmas: Tensor) -> Tensor:
    """Predict clean latents from noisy ones `(B, ...)` at noise levels `(B,)`."""
    c = coefficients_of(sigmas)
    model_output = network(like(c.into, noisy) * noisy, c.time)
    return like(c.skip, noisy) * noisy + like(c.out, noisy) * model_output


def denoising_loss(network: Network, clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Return the squared error of the model output, over all levels of even weight.

    That is the squared error of the prediction, weighted by `(sigma^2 + 1) / sigma^2`.

    Args:
        network: What is trained.
        clean: Latents `(B, ...)`.
        noise: Standard normal, like them.
        sigmas: Noise levels `(B,)`.
    """
    c = coefficients_of(sigmas)
    noisy = edm_noise(clean, noise, sigmas)
    wanted = (clean - like(c.skip, clean) * noisy) / like(c.out, clean)
    model_output = network(like(c.into, clean) * noisy, c.time)
    return (model_output - wanted).square().mean()


def draw_sigmas(count: int, spread: tuple[float, float], noise: torch.Generator) -> Tensor:
    """Draw noise levels `(count,)` of a lognormal distribution.

    Args:
        count: How many.
        spread: Mean and deviation of their logarithm.
        noise: Source of the draw.
    """
    mean, deviation = spread
    return torch.exp(mean + deviation * torch.randn(count, generator=noise))


@torch.no_grad()
def walk_down(network: Network, noise: Tensor, scheduler: EDMScheduler, steps: int) -> Tensor:
    """Return clean latents after so many Euler steps from unit noise `(B, ...)`.

    `mvsdk.sampling.sample_edm_euler` for batches of tensors: same levels, same start.
    """
    levels = karras_sigmas(steps, scheduler.sigma_min, scheduler.sigma_max, scheduler.rho)
    x = noise * float(np.hypot(scheduler.sigma_max, 1.0))
    for sigma, following in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        clean = denoise(network, x, torch.full((len(x),), sigma))
        x = clean + following / sigma * (x - clean)
    return x


@torch.no_grad()
def jump_down(network: Network, noise: Tensor, sigma: float) -> Tensor:
    """Return clean latents after one evaluation, from `sigma` times unit noise `(B, ...)`."""
    return denoise(network, sigma * noise, torch.full((len(noise),), sigma))


def like(values: Tensor, x: Tensor) -> Tensor:
    """Give values `(B,)` as many dimensions as `x` has."""
    return values.reshape(-1, *[1] * (x.dim() - 1))
