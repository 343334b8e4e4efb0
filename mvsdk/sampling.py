"""Few-step samplers: pure generators over arrays, one function each.

A sampler yields the latents after every step, so the caller owns progress, preview, cancellation
and memory. It knows no network: `denoise(model_input, index)` runs one at step `index`, and the
timestep which that step feeds comes from the manifest. Parameterisation (`to_denoised`) is apart
from integration, so that every sampler works on the denoised estimate x0 alone.

Arithmetic is the same in every language: coefficients in float64 from the float32 sigmas, rounded
to float32 once; arrays in float32, one rounding per operation, never fused.

Symbols: x latents, s sigma, x0 denoised, r = s_next / s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mvsdk.errors import InputError, ScheduleError
from mvsdk.schedules import Sigmas, check_sigmas

Latents = NDArray[np.float32]
"""Latents of any rank; for a video (T, C, H, W) or (B, C, T, H, W). Float32."""

Denoiser = Callable[[Latents, int], Latents]
"""(scaled model input, step index from 0) -> model_output of the same shape."""

Noise = Callable[[int], Latents]
"""Index k >= 1 of the step that is about to run -> fresh standard normal of the latents' shape."""

PredictionType = Literal["velocity", "sample", "epsilon", "v_prediction"]


def to_denoised(
    model_output: Latents, model_input: Latents, sigma: float, *, prediction_type: PredictionType
) -> Latents:
    """Convert what a network predicts to the denoised estimate x0.

    "velocity" is that of rectified flow: input x = (1-s) x0 + s eps, output eps - x0.
    "epsilon" and "v_prediction" are variance preserving: with a = 1/sqrt(s^2+1) and b = s a, input
    x = a x0 + b eps, output eps, or a eps - b x0. "sample" is x0 itself, in both families.

    Args:
        model_output: Network result. Float32, any shape.
        model_input: Network input at `sigma`, same shape.
        sigma: Noise level s > 0.
        prediction_type: What the network predicts.

    Returns:
        Denoised estimate. Float32, same shape.

    Raises:
        InputError: If `prediction_type` is unknown.

    Reference:
        Salimans & Ho 2022, arXiv:2202.00512 (v); Liu et al. 2022, arXiv:2209.03003 (velocity).
    """
    signal = 1.0 / math.sqrt(sigma * sigma + 1.0)
    match prediction_type:
        case "sample":
            return model_output
        case "velocity":
            return model_input - _scaled(sigma, model_output)
        case "epsilon":
            return _scaled(1.0 / signal, model_input) - _scaled(sigma, model_output)
        case "v_prediction":
            return _scaled(signal, model_input) - _scaled(sigma * signal, model_output)
        case _:
            raise InputError(
                f"unknown prediction_type {prediction_type!r}; known: "
                f"{', '.join(get_args(PredictionType))}; correct the manifest"
            )


def sample_flow_euler(
    denoise: Denoiser, latents: Latents, sigmas: Sigmas, *, prediction_type: PredictionType
) -> Iterator[Latents]:
    """Integrate the probability-flow ODE of rectified flow with Euler steps.

    x <- x0 + r (x - x0), which is x + (s_next - s) velocity and lands on x0 exactly at s_next = 0.

    Args:
        denoise: Network at fixed conditioning; its input is not scaled.
        latents: Noise at `sigmas[0]`. Float32, any shape.
        sigmas: Noise levels in [0, 1], strictly falling, last 0. Float32, (N + 1,).
        prediction_type: "velocity" or "sample".

    Yields:
        Latents at `sigmas[1]` ... `sigmas[N]`, shape and dtype unchanged. Read them, do not write.

    Raises:
        ScheduleError: If `sigmas` is no flow schedule.
        InputError: If the network changes the shape, or `prediction_type` does not belong here.

    Reference:
        Liu et al. 2022, "Flow Straight and Fast", arXiv:2209.03003, Alg. 1.
    """
    check_sigmas(sigmas, upper=1.0)
    _check_prediction_type("flow_euler", prediction_type)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        model_output = _run(denoise, latents, index)
        denoised = to_denoised(model_output, latents, sigma, prediction_type=prediction_type)
        latents = _euler_step(latents, denoised, sigma, sigma_next)
        yield latents


def sample_flow_consistency(
    denoise: Denoiser,
    latents: Latents,
    sigmas: Sigmas,
    *,
    prediction_type: PredictionType,
    noise: Noise,
) -> Iterator[Latents]:
    """Alternate full denoising and fresh noise, for distilled rectified-flow models.

    x <- (1 - s_next) x0 + s_next eps_new; the last step adds none and draws none.

    Args:
        denoise: Network at fixed conditioning; its input is not scaled.
        latents: Noise at `sigmas[0]`. Float32, any shape.
        sigmas: Noise levels in [0, 1], strictly falling, last 0. Float32, (N + 1,).
        prediction_type: "velocity" or "sample".
        noise: Fresh noise, asked for k = 1 ... N - 1.

    Yields:
        Latents at `sigmas[1]` ... `sigmas[N]`, shape and dtype unchanged. Read them, do not write.

    Raises:
        ScheduleError: If `sigmas` is no flow schedule.
        InputError: If network or noise change the shape, or `prediction_type` does not belong here.

    Reference:
        `FlowMatchLCMScheduler` in diffusers; Song et al. 2023, arXiv:2303.01469, Alg. 1.
    """
    check_sigmas(sigmas, upper=1.0)
    _check_prediction_type("flow_consistency", prediction_type)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        model_output = _run(denoise, latents, index)
        denoised = to_denoised(model_output, latents, sigma, prediction_type=prediction_type)
        latents = _renoise(denoised, noise, index + 1, signal=1.0 - sigma_next, level=sigma_next)
        yield latents


def sample_lcm(
    denoise: Denoiser,
    latents: Latents,
    sigmas: Sigmas,
    *,
    prediction_type: PredictionType,
    timesteps: Sequence[float],
    noise: Noise,
    sigma_data: float = 0.5,
    timestep_scaling: float = 10.0,
) -> Iterator[Latents]:
    """Sample a latent consistency model on the variance-preserving path.

    With t' = timestep_scaling * t, c_skip = d^2 / (t'^2 + d^2) and c_out = t' / sqrt(t'^2 + d^2):
    y = c_out x0 + c_skip x, then x <- sqrt(a_next) y + sqrt(1 - a_next) eps_new, where
    a = 1 / (s^2 + 1) is the signal power (`alphas_cumprod`). The last step adds no noise.

    Args:
        denoise: Network at fixed conditioning; its input is not scaled.
        latents: Noise at `sigmas[0]`. Float32, any shape.
        sigmas: sqrt((1 - alpha) / alpha) at the timesteps, then 0. Float32, (N + 1,).
        prediction_type: "epsilon", "v_prediction" or "sample".
        timesteps: Training timesteps t of the N steps.
        noise: Fresh noise, asked for k = 1 ... N - 1.
        sigma_data: d, spread of the data in the boundary condition.
        timestep_scaling: Factor of t in the boundary condition.

    Yields:
        Latents at `sigmas[1]` ... `sigmas[N]`, shape and dtype unchanged. Read them, do not write.

    Raises:
        ScheduleError: If `sigmas` is no schedule, or `timesteps` has another length.
        InputError: If network or noise change the shape, or `prediction_type` does not belong here.

    Reference:
        Luo et al. 2023, arXiv:2310.04378; `LCMScheduler` in diffusers.
    """
    check_sigmas(sigmas)
    _check_prediction_type("lcm", prediction_type)
    if len(timesteps) != len(sigmas) - 1:
        raise ScheduleError(
            f"{len(timesteps)} timesteps for {len(sigmas)} sigmas; allowed: one less than sigmas; "
            "correct the schedule in the manifest"
        )
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        model_output = _run(denoise, latents, index)
        denoised = to_denoised(model_output, latents, sigma, prediction_type=prediction_type)
        scaled_t = timestep_scaling * float(timesteps[index])
        power = scaled_t * scaled_t + sigma_data * sigma_data
        c_skip, c_out = sigma_data * sigma_data / power, scaled_t / math.sqrt(power)
        denoised = _scaled(c_out, denoised) + _scaled(c_skip, latents)
        signal = 1.0 / math.sqrt(sigma_next * sigma_next + 1.0)
        latents = _renoise(denoised, noise, index + 1, signal=signal, level=sigma_next * signal)
        yield latents


def sample_edm_euler(
    denoise: Denoiser, latents: Latents, sigmas: Sigmas, *, prediction_type: PredictionType
) -> Iterator[Latents]:
    """Integrate the EDM probability-flow ODE, x = x0 + s eps, with Euler steps.

    The network sees x / sqrt(s^2 + 1); x <- x0 + r (x - x0). `sigmas` [s, 0] is the one-step form.

    Args:
        denoise: Network at fixed conditioning; its input has unit variance.
        latents: Noise times the manifest's `init_noise_sigma`: sqrt(sigma_max^2 + 1) for "leading"
            spacing, sigma_max otherwise. Float32 (values near 700 overflow float16), any shape.
        sigmas: Noise levels, strictly falling, last 0. Float32, (N + 1,).
        prediction_type: "v_prediction", "epsilon" or "sample".

    Yields:
        Latents at `sigmas[1]` ... `sigmas[N]`, shape and dtype unchanged. Read them, do not write.

    Raises:
        ScheduleError: If `sigmas` is no schedule.
        InputError: If the network changes the shape, or `prediction_type` does not belong here.

    Reference:
        Karras et al. 2022, arXiv:2206.00364, Alg. 1 without the second-order correction.
    """
    check_sigmas(sigmas)
    _check_prediction_type("edm_euler", prediction_type)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        model_input = _scaled(1.0 / math.sqrt(sigma * sigma + 1.0), latents)
        model_output = _run(denoise, model_input, index)
        denoised = to_denoised(model_output, model_input, sigma, prediction_type=prediction_type)
        latents = _euler_step(latents, denoised, sigma, sigma_next)
        yield latents


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerKind:
    """One row of `SAMPLERS`: the function, and which of the manifest's values it takes."""

    function: Callable[..., Iterator[Latents]]
    prediction_types: tuple[PredictionType, ...]
    takes_timesteps: bool = False
    takes_noise: bool = False


SAMPLERS: dict[str, SamplerKind] = {
    "flow_euler": SamplerKind(
        function=sample_flow_euler,
        prediction_types=("velocity", "sample"),
    ),
    "flow_consistency": SamplerKind(
        function=sample_flow_consistency,
        prediction_types=("velocity", "sample"),
        takes_noise=True,
    ),
    "lcm": SamplerKind(
        function=sample_lcm,
        prediction_types=("epsilon", "v_prediction", "sample"),
        takes_timesteps=True,
        takes_noise=True,
    ),
    "edm_euler": SamplerKind(
        function=sample_edm_euler,
        prediction_types=("v_prediction", "epsilon", "sample"),
    ),
}
"""Samplers by the manifest's `sampler.kind`."""


def sample(
    kind: str,
    denoise: Denoiser,
    latents: Latents,
    sigmas: Sigmas,
    *,
    prediction_type: PredictionType,
    timesteps: Sequence[float],
    noise: Noise,
) -> Iterator[Latents]:
    """Run the sampler that a manifest names; arguments that it does not take are left out.

    Args:
        kind: Key of `SAMPLERS`.
        denoise: Network at fixed conditioning.
        latents: Noise at `sigmas[0]`. Float32, any shape.
        sigmas: Noise levels, strictly falling, last 0. Float32, (N + 1,).
        prediction_type: What the network predicts.
        timesteps: What the network receives at each of the N steps.
        noise: Fresh noise for samplers that add some.

    Returns:
        Generator of the latents after each step.

    Raises:
        InputError: If `kind` is unknown, or `prediction_type` is not one of its own.
    """
    _check_prediction_type(kind, prediction_type)
    sampler = SAMPLERS[kind]
    extra: dict[str, Sequence[float] | Noise] = {}
    if sampler.takes_timesteps:
        extra["timesteps"] = timesteps
    if sampler.takes_noise:
        extra["noise"] = noise
    return sampler.function(denoise, latents, sigmas, prediction_type=prediction_type, **extra)


def _euler_step(x: Latents, x0: Latents, sigma: float, sigma_next: float) -> Latents:
    return x0 + _scaled(sigma_next / sigma, x - x0)


def _renoise(x0: Latents, noise: Noise, index: int, *, signal: float, level: float) -> Latents:
    if level == 0.0:
        return x0
    fresh = _check_shape("noise", noise(index), x0)
    return _scaled(signal, x0) + _scaled(level, fresh)


def _run(denoise: Denoiser, model_input: Latents, index: int) -> Latents:
    return _check_shape("model_output", denoise(model_input, index), model_input)


def _check_shape(name: str, array: Latents, latents: Latents) -> Latents:
    if array.shape != latents.shape:
        raise InputError(
            f"{name} has shape {array.shape}, latents have {latents.shape}; allowed: equal shapes; "
            "re-export the denoiser or correct the latents' shape in the manifest"
        )
    return array.astype(np.float32, copy=False)


def _check_prediction_type(kind: str, prediction_type: str) -> None:
    if kind not in SAMPLERS:
        raise InputError(f"unknown sampler {kind!r}; known: {', '.join(SAMPLERS)}; update mvsdk")
    allowed = SAMPLERS[kind].prediction_types
    if prediction_type not in allowed:
        raise InputError(
            f"prediction_type of sampler {kind} is {prediction_type!r}; allowed: "
            f"{', '.join(allowed)}; correct the manifest"
        )


def _scaled(coefficient: float, array: Latents) -> Latents:
    return array * np.float32(coefficient)
