"""Samplers and schedules against the schedulers of diffusers, on a network made of one line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch
from numpy.typing import NDArray
from tiny_svd import quiet

from mvsdk import sampling, schedules
from mvsdk.noise import initial_latents

pytestmark = pytest.mark.torch

SHAPE = (2, 4, 8, 8)
BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
SPACINGS = ("linspace", "leading", "trailing")


def timesteps_for(spacing: str, steps: int) -> NDArray[Any]:
    match spacing:
        case "linspace":
            return schedules.linspace_timesteps(steps)
        case "leading":
            return schedules.leading_timesteps(steps, steps_offset=1)
        case _:
            return schedules.trailing_timesteps(steps)


def network(model_input: Any, timestep: float) -> Any:
    return model_input * 0.3 + (timestep / 5000.0 + 0.1)


def ours(
    kind: str, sigmas: schedules.Sigmas, timesteps: NDArray[Any], scale: float, prediction_type: Any
) -> list[sampling.Latents]:
    return list(
        sampling.sample(
            kind,
            lambda z, index: network(z, float(timesteps[index])),
            initial_latents(7, SHAPE) * np.float32(scale),
            sigmas,
            prediction_type=prediction_type,
            timesteps=timesteps.tolist(),
            noise=lambda index: initial_latents(7, SHAPE, stream=index),
        )
    )


def theirs(scheduler: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> list[NDArray[Any]]:
    """Run diffusers' loop; the noise that it draws is that of the stream of the step."""
    with quiet():
        scheduler.set_timesteps(steps)
    latents = torch.from_numpy(initial_latents(7, SHAPE)) * scheduler.init_noise_sigma
    states: list[NDArray[Any]] = []
    module = type(scheduler).__module__
    monkeypatch.setattr(
        f"{module}.randn_tensor",
        lambda *_, **__: torch.from_numpy(initial_latents(7, SHAPE, stream=len(states) + 1)),
    )
    for timestep in scheduler.timesteps:
        model_output = network(scheduler.scale_model_input(latents, timestep), float(timestep))
        latents = scheduler.step(model_output, timestep, latents).prev_sample
        states.append(latents.numpy())
    return states


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 10])
def test_euler_ancestral_equals_that_of_diffusers(
    steps: int, spacing: str, prediction_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    with quiet():
        scheduler = EulerAncestralDiscreteScheduler(
            **BETAS, timestep_spacing=spacing, steps_offset=1, prediction_type=prediction_type
        )
    expected = theirs(scheduler, steps, monkeypatch)
    timesteps = timesteps_for(spacing, steps)
    sigmas = schedules.alphas_cumprod_sigmas(schedules.alphas_cumprod(), timesteps)
    scale = math.hypot(float(sigmas[0]), 1.0) if spacing == "leading" else float(sigmas[0])
    assert timesteps.tolist() == scheduler.timesteps.tolist()
    np.testing.assert_allclose(sigmas, scheduler.sigmas.numpy(), rtol=3e-6, atol=5e-7)
    assert scale == pytest.approx(float(scheduler.init_noise_sigma), rel=3e-6, abs=5e-7)
    states = ours("euler_ancestral", sigmas, timesteps, scale, prediction_type)
    for state, other in zip(states, expected, strict=True):
        np.testing.assert_allclose(state, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("set_alpha_to_one", [False, True])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 4, 8, 20])
def test_edm_euler_in_unit_variance_equals_ddim_of_diffusers(
    steps: int, spacing: str, set_alpha_to_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With "linspace" diffusers' DDIM steps to levels other than the next step's: left out."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        **BETAS,
        timestep_spacing=spacing,
        steps_offset=1,
        set_alpha_to_one=set_alpha_to_one,
        clip_sample=False,
    )
    expected = theirs(scheduler, steps, monkeypatch)
    alphas = schedules.alphas_cumprod()
    timesteps = timesteps_for(spacing, steps)
    final_alpha = 1.0 if set_alpha_to_one else float(alphas[0])
    sigmas = schedules.alphas_cumprod_sigmas(alphas, timesteps, final_alpha=final_alpha)
    assert timesteps.tolist() == scheduler.timesteps.tolist()
    states = ours("edm_euler", sigmas, timesteps, math.hypot(float(sigmas[0]), 1.0), "epsilon")
    for state, sigma, other in zip(states, sigmas[1:].tolist(), expected, strict=True):
        unit = state * np.float32(1.0 / math.sqrt(1.0 + sigma * sigma))
        np.testing.assert_allclose(unit, other, rtol=1e-5, atol=1e-5)
