"""Samplers of every kind, in one, two and four steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvsdk import schedules
from mvsdk.manifest import PredictionType, Sampler, SamplerKind, Schedule


def sampler_of(
    kind: SamplerKind, prediction: PredictionType, steps: Mapping[int, Any], **more: Any
) -> Sampler:
    """Return a sampler of steps -> (sigmas, timesteps); the most steps are the default."""
    made = {
        n: Schedule(sigmas=tuple(map(float, sigmas)), timesteps=tuple(map(float, timesteps)))
        for n, (sigmas, timesteps) in steps.items()
    }
    default = more.pop("default_steps", max(made))
    return Sampler(
        kind=kind, prediction_type=prediction, schedules=made, default_steps=default, **more
    )


def _even(steps: int) -> tuple[list[float], list[float]]:
    sigmas = [1 - index / steps for index in range(steps + 1)]
    return sigmas, [1000 * sigma for sigma in sigmas[:-1]]


STEPS = (1, 2, 4)
FLOW = {n: _even(n) for n in STEPS}
ALPHAS = schedules.alphas_cumprod()
LCM_TIMESTEPS = {n: schedules.lcm_timesteps(n) for n in STEPS}
LCM = {
    n: (schedules.alphas_cumprod_sigmas(ALPHAS, LCM_TIMESTEPS[n]), LCM_TIMESTEPS[n]) for n in STEPS
}
# Written out: what makes them takes a power of the machine's library.
EDM = {
    1: ([80.0, 0.0], [1.0955]),
    2: ([80.0, 2.5, 0.0], [1.0955, 0.2291]),
    4: ([80.0, 9.5, 1.25, 0.125, 0.0], [1.0955, 0.5628, 0.0558, -0.5199]),
}
ABOVE_ZERO = {
    1: ([14.5, 0.03], [999.0]),
    2: ([14.5, 1.6, 0.03], [999.0, 499.0]),
    4: ([14.5, 4.25, 1.6, 0.55, 0.03], [999.0, 749.0, 499.0, 249.0]),
}
STRAIGHT = sampler_of("flow_euler", "velocity", FLOW)
SAMPLERS = {
    "flow_euler of velocity": STRAIGHT,
    "flow_euler of samples": sampler_of("flow_euler", "sample", FLOW),
    "flow_consistency of velocity": sampler_of("flow_consistency", "velocity", FLOW),
    "flow_consistency of samples": sampler_of("flow_consistency", "sample", FLOW),
    "lcm of epsilon": sampler_of("lcm", "epsilon", LCM),
    "lcm of v": sampler_of("lcm", "v_prediction", LCM),
    "edm_euler of v": sampler_of("edm_euler", "v_prediction", EDM, init_noise_sigma=80.0),
    "edm_euler of epsilon, last level above 0": sampler_of(
        "edm_euler", "epsilon", ABOVE_ZERO, init_noise_sigma=14.534
    ),
    "euler_ancestral of epsilon": sampler_of(
        "euler_ancestral", "epsilon", EDM, init_noise_sigma=80.00625
    ),
    "euler_ancestral of samples, last level above 0": sampler_of(
        "euler_ancestral", "sample", ABOVE_ZERO, init_noise_sigma=14.5
    ),
}
