"""Latents, schedules and noise that samplers are tried on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mvsdk import noise, sampling, schedules

SHAPE = (2, 4, 3, 5)
DATA = np.linspace(-2.0, 2.0, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
EPS = noise.initial_latents(7, SHAPE)
FLOW = schedules.flow_sigmas(4, shift=3.0)
LCM_TIMESTEPS = schedules.lcm_timesteps(4)
LCM = schedules.alphas_cumprod_sigmas(schedules.alphas_cumprod(), LCM_TIMESTEPS)
EDM = schedules.karras_sigmas(4, 0.002, 700.0)
ALPHAS = schedules.alphas_cumprod()
LINSPACE_TIMESTEPS = schedules.linspace_timesteps(4)
LINSPACE = schedules.alphas_cumprod_sigmas(ALPHAS, LINSPACE_TIMESTEPS)


def fresh_noise(index: int) -> sampling.Latents:
    """Return the noise before a step."""
    return noise.initial_latents(7, SHAPE, stream=index)


def schedule_of(kind: str) -> tuple[schedules.Sigmas, list[float]]:
    """Return sigmas and timesteps of four steps."""
    return {
        "flow_euler": (FLOW, [1.0] * 4),
        "flow_consistency": (FLOW, [1.0] * 4),
        "lcm": (LCM, LCM_TIMESTEPS.tolist()),
        "edm_euler": (EDM, [1.0] * 4),
        "euler_ancestral": (LINSPACE, LINSPACE_TIMESTEPS.tolist()),
    }[kind]


def start(
    kind: str,
    denoise: sampling.Denoiser,
    prediction_type: Any = "sample",
    *,
    sigmas: list[float] | None = None,
    fresh: sampling.Noise = fresh_noise,
) -> Iterator[sampling.Latents]:
    """Return a trajectory that begins with `EPS`; `sigmas` are those of four steps unless given."""
    own_sigmas, timesteps = schedule_of(kind)
    return sampling.sample(
        kind,
        denoise,
        EPS,
        own_sigmas if sigmas is None else np.array(sigmas, np.float32),
        prediction_type=prediction_type,
        timesteps=timesteps if sigmas is None else [1.0] * (len(sigmas) - 1),
        noise=fresh,
    )


KINDS = tuple(sampling.SAMPLERS)
TO_ZERO = tuple(kind for kind in KINDS if sampling.SAMPLERS[kind].last_zero)
ABOVE_ZERO = tuple(kind for kind in KINDS if not sampling.SAMPLERS[kind].last_zero)


def identity(model_input: sampling.Latents, index: int) -> sampling.Latents:
    """Return what a network that changes nothing gives."""
    return model_input
