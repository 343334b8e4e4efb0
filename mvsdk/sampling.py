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
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from mvsdk.errors import InputError, ScheduleError
from mvsdk.samplers import SAMPLER_KINDS, SAMPLERS, PredictionType, SamplerKind
from mvsdk.schedules import Sigmas, check_sigmas

if TYPE_CHECKING:
    from mvsdk.manifest import Sampler

Latents = NDArray[np.float32]
"""Latents of any rank; for a video (T, C, H, W) or (B, C, T, H, W). Float32."""

Denoiser = Callable[[Latents, int], Latents]
"""(scaled model input, step index from 0) -> model_output of the same shape."""

Noise = Callable[[int], Latents]
"""Index k >= 1 of the step that is about to run -> fresh standard normal of the latents' shape.

Where sampling starts from stream s of a seed's noise, this is stream s + k."""


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
    DDIM (eta 0) is this sampler in latents of unit variance: times sqrt(s^2 + 1) before the first
    step, divided by it after the last, whose level is then above 0 where a clip stays that noisy.

    Args:
        denoise: Network at fixed conditioning; its input has unit variance.
        latents: Noise times the manifest's `init_noise_sigma`: sqrt(sigma_max^2 + 1) for "leading"
            spacing, sigma_max otherwise. Float32 (values near 700 overflow float16), any shape.
        sigmas: Noise levels, strictly falling, last 0 or above. Float32, (N + 1,).
        prediction_type: "v_prediction", "epsilon" or "sample".

    Yields:
        Latents at `sigmas[1]` ... `sigmas[N]`, shape and dtype unchanged. Read them, do not write.

    Raises:
        ScheduleError: If `sigmas` is no schedule.
        InputError: If the network changes the shape, or `prediction_type` does not belong here.

    Reference:
        Karras et al. 2022, arXiv:2206.00364, Alg. 1 without the second-order correction; Song et
        al. 2020, arXiv:2010.02502, eq. 13 (DDIM as an ODE).
    """
    check_sigmas(sigmas, last_zero=False)
    _check_prediction_type("edm_euler", prediction_type)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        model_input = _scaled(1.0 / math.sqrt(sigma * sigma + 1.0), latents)
        model_output = _run(denoise, model_input, index)
        denoised = to_denoised(model_output, model_input, sigma, prediction_type=prediction_type)
        latents = _euler_step(latents, denoised, sigma, sigma_next)
        yield latents


def sample_euler_ancestral(
    denoise: Denoiser,
    latents: Latents,
    sigmas: Sigmas,
    *,
    prediction_type: PredictionType,
    noise: Noise,
) -> Iterator[Latents]:
    """Step below the next level on the EDM path, then add the noise that leads back up to it.

    The network sees x / sqrt(s^2 + 1); x <- x0 + (s_down / s) (x - x0) + s_up eps_new with
    s_up^2 + s_down^2 = s_next^2. A step to s_next = 0 lands on x0 and draws none.

    Args:
        denoise: Network at fixed conditioning; its input has unit variance.
        latents: Noise times the manifest's `init_noise_sigma`, as for `sample_edm_euler`. Float32,
            any shape.
        sigmas: Noise levels, strictly falling, last 0 or above. Float32, (N + 1,).
        prediction_type: "epsilon", "v_prediction" or "sample".
        noise: Fresh noise, asked for k = 1 ... N - 1, and for N where the last level is above 0.

    Yields:
        Latents at `sigmas[1]` ... `sigmas[N]`, shape and dtype unchanged. Read them, do not write.

    Raises:
        ScheduleError: If `sigmas` is no schedule.
        InputError: If network or noise change the shape, or `prediction_type` does not belong here.

    Reference:
        `sample_euler_ancestral` in k-diffusion and `EulerAncestralDiscreteScheduler` in diffusers,
        both with eta = 1.
    """
    check_sigmas(sigmas, last_zero=False)
    _check_prediction_type("euler_ancestral", prediction_type)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.tolist())):
        model_input = _scaled(1.0 / math.sqrt(sigma * sigma + 1.0), latents)
        model_output = _run(denoise, model_input, index)
        denoised = to_denoised(model_output, model_input, sigma, prediction_type=prediction_type)
        level, target = _ancestral_levels(sigma, sigma_next)
        latents = _euler_step(latents, denoised, sigma, target)
        if sigma_next > 0.0:
            fresh = _check_shape("noise", noise(index + 1), latents)
            latents = latents + _scaled(level, fresh)
        yield latents


_FUNCTIONS: Mapping[SamplerKind, Callable[..., Iterator[Latents]]] = {
    "flow_euler": sample_flow_euler,
    "flow_consistency": sample_flow_consistency,
    "lcm": sample_lcm,
    "edm_euler": sample_edm_euler,
    "euler_ancestral": sample_euler_ancestral,
}


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
        sigmas: Noise levels, strictly falling; the last as the row of `SAMPLERS` says. Float32,
            (N + 1,).
        prediction_type: What the network predicts.
        timesteps: What the network receives at each of the N steps.
        noise: Fresh noise for samplers that add some.

    Returns:
        Generator of the latents after each step.

    Raises:
        InputError: If `kind` is unknown, or `prediction_type` is not one of its own.
    """
    known = _check_prediction_type(kind, prediction_type)
    traits = SAMPLERS[known]
    extra: dict[str, Sequence[float] | Noise] = {}
    if traits.takes_timesteps:
        extra["timesteps"] = timesteps
    if traits.takes_noise:
        extra["noise"] = noise
    return _FUNCTIONS[known](denoise, latents, sigmas, prediction_type=prediction_type, **extra)


def sample_schedule(
    sampler: Sampler, steps: int, denoise: Denoiser, latents: Latents, noise: Noise
) -> Iterator[Latents]:
    """Run the sampler of a manifest at one of its schedules.

    Args:
        sampler: The manifest's.
        steps: One of the numbers of steps that it has a schedule for.
        denoise: Network at fixed conditioning.
        latents: Noise times `init_noise_sigma`. Float32, any shape.
        noise: Fresh noise for samplers that add some.
    """
    schedule = sampler.schedules[steps]
    return sample(
        sampler.kind,
        denoise,
        latents,
        np.asarray(schedule.sigmas, np.float32),
        prediction_type=sampler.prediction_type,
        timesteps=schedule.timesteps,
        noise=noise,
    )


def _euler_step(x: Latents, x0: Latents, sigma: float, sigma_next: float) -> Latents:
    return x0 + _scaled(sigma_next / sigma, x - x0)


def _ancestral_levels(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Return the level of the noise to add, and the one to step down to: s_up and s_down.

    Both are rounded in float64 operation by operation, in the order written here. Without rounding
    s_down is s_next^2 / s; it is computed from s_up, so that their squares add up.
    """
    power, power_next = sigma * sigma, sigma_next * sigma_next
    up = min(sigma_next, math.sqrt(power_next * (power - power_next) / power))
    return up, math.sqrt(power_next - up * up)


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


def _check_prediction_type(kind: str, prediction_type: str) -> SamplerKind:
    found: SamplerKind | None = next((known for known in SAMPLER_KINDS if known == kind), None)
    if found is None:
        raise InputError(f"unknown sampler {kind!r}; known: {', '.join(SAMPLERS)}; update mvsdk")
    allowed = SAMPLERS[found].prediction_types
    if prediction_type not in allowed:
        raise InputError(
            f"prediction_type of sampler {kind} is {prediction_type!r}; allowed: "
            f"{', '.join(allowed)}; correct the manifest"
        )
    return found


def _scaled(coefficient: float, array: Latents) -> Latents:
    return array * np.float32(coefficient)
