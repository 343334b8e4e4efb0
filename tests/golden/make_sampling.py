"""Trajectories of every sampler, of every kind of schedule: each with a network of one line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsdk import noise, sampling, schedules

# The network of every trajectory, rounded twice: model_output = gain * model_input + bias[step].
GAIN = 0.375
BIAS = (0.5, -0.25, 0.125, 0.0)
FLOW = schedules.flow_sigmas(4, shift=3.0)
LCM_TIMESTEPS = schedules.lcm_timesteps(4)
LCM = schedules.alphas_cumprod_sigmas(schedules.alphas_cumprod(), LCM_TIMESTEPS)
EDM = schedules.karras_sigmas(4, 0.002, 700.0)
ONE_STEP = schedules.karras_sigmas(1, 0.002, 700.0)
ALPHAS = schedules.alphas_cumprod()
LINSPACE_TIMESTEPS = schedules.linspace_timesteps(4)
LINSPACE = schedules.alphas_cumprod_sigmas(ALPHAS, LINSPACE_TIMESTEPS)
LEADING_TIMESTEPS = schedules.leading_timesteps(4, steps_offset=1)
LEADING = schedules.alphas_cumprod_sigmas(ALPHAS, LEADING_TIMESTEPS)
DDIM = schedules.alphas_cumprod_sigmas(ALPHAS, LEADING_TIMESTEPS, final_alpha=float(ALPHAS[0]))


def _below(level: float) -> float:
    return float(np.nextafter(np.float32(level), np.float32(0.0)))


# Levels that are neighbours in float32: the largest two of a flow, and the smallest two above 0.
CLOSE_FLOW = np.array([1.0, _below(1.0), 2.8e-45, 1.4e-45, 0.0], np.float32)
CLOSE = np.array([14.614647, _below(14.614647), 0.5, _below(0.5), 0.0], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A trajectory of six numbers."""

    kind: str
    prediction_type: sampling.PredictionType
    sigmas: schedules.Sigmas
    timesteps: NDArray[Any]
    init_noise_sigma: float = 1.0
    more: bool = False
    """Whether the case also says the noise that it starts from, and its scale."""
    unit_variance: bool = False
    """Whether it ends with 1 / sqrt(s^2 + 1) times the last latents, as DDIM gives them."""


def _cases(
    kind: str, prediction_types: Sequence[Any], sigmas: schedules.Sigmas, timesteps: NDArray[Any]
) -> list[Case]:
    """Start the kinds of the variance-exploding path at the first level, others at 1."""
    is_exploding = kind in ("edm_euler", "euler_ancestral")
    return [
        Case(
            kind=kind,
            prediction_type=item,
            sigmas=sigmas,
            timesteps=timesteps,
            init_noise_sigma=float(sigmas[0]) if is_exploding else 1.0,
        )
        for item in prediction_types
    ]


TRAJECTORIES: tuple[Case, ...] = (
    *_cases("flow_euler", ("velocity", "sample"), FLOW, schedules.flow_timesteps(FLOW)),
    *_cases("flow_consistency", ("velocity", "sample"), FLOW, schedules.flow_timesteps(FLOW)),
    *_cases("lcm", ("epsilon", "v_prediction", "sample"), LCM, LCM_TIMESTEPS),
    *_cases("edm_euler", ("v_prediction", "epsilon"), EDM, schedules.edm_timesteps(EDM)),
    *_cases("edm_euler", ("v_prediction",), ONE_STEP, schedules.edm_timesteps(ONE_STEP)),
    *_cases("edm_euler", ("sample",), EDM, schedules.edm_timesteps(EDM)),
    *_cases("euler_ancestral", ("epsilon", "v_prediction", "sample"), LINSPACE, LINSPACE_TIMESTEPS),
    *_cases("flow_euler", ("velocity",), CLOSE_FLOW, schedules.flow_timesteps(CLOSE_FLOW)),
    *_cases("flow_consistency", ("velocity",), CLOSE_FLOW, schedules.flow_timesteps(CLOSE_FLOW)),
    *(
        case
        for kind in ("lcm", "edm_euler", "euler_ancestral")
        for case in _cases(kind, ("epsilon",), CLOSE, LCM_TIMESTEPS)
    ),
)
SCALED_TRAJECTORIES = (
    *(
        Case(
            kind=kind,
            prediction_type="epsilon",
            sigmas=LEADING,
            timesteps=LEADING_TIMESTEPS,
            init_noise_sigma=math.sqrt(float(LEADING[0]) ** 2 + 1.0),
            more=True,
        )
        for kind in ("edm_euler", "euler_ancestral")
    ),
    Case(
        kind="flow_euler",
        prediction_type="velocity",
        sigmas=FLOW,
        timesteps=schedules.flow_timesteps(FLOW),
        init_noise_sigma=0.7,
        more=True,
    ),
)
ABOVE_ZERO_TRAJECTORIES = tuple(
    Case(
        kind=kind,
        prediction_type="epsilon",
        sigmas=DDIM,
        timesteps=LEADING_TIMESTEPS,
        init_noise_sigma=math.sqrt(float(DDIM[0]) ** 2 + 1.0),
        more=True,
        unit_variance=kind == "edm_euler",
    )
    for kind in ("edm_euler", "euler_ancestral")
)
LONG_STEPS = 1000


def build_sampling() -> dict[str, list[dict[str, Any]]]:
    """Run every sampler with a linear network on six numbers, and on many steps."""
    return {
        "trajectories": [_trajectory(case) for case in TRAJECTORIES],
        "scaled": [_trajectory(case) for case in SCALED_TRAJECTORIES],
        "last_above_zero": [_trajectory(case) for case in ABOVE_ZERO_TRAJECTORIES],
        "thousand_steps": [_digest(kind) for kind in sampling.SAMPLERS],
    }


def _trajectory(case: Case) -> dict[str, Any]:
    shape, steps = (2, 3), len(case.timesteps)
    start = noise.initial_latents(7, shape)
    latents = start * np.float32(case.init_noise_sigma)
    draws = steps - (case.sigmas[-1] == 0.0)  # a step to level 0 draws none
    fresh = {index: noise.initial_latents(7, shape, stream=index) for index in range(1, draws + 1)}
    trajectory = list(
        sampling.sample(
            case.kind,
            lambda model_input, index: model_input * np.float32(GAIN) + np.float32(BIAS[index]),
            latents,
            case.sigmas,
            prediction_type=case.prediction_type,
            timesteps=case.timesteps.tolist(),
            noise=fresh.__getitem__,
        )
    )
    ended: dict[str, Any] = {}
    if case.unit_variance:
        scale = np.float32(1.0 / math.sqrt(float(case.sigmas[-1]) ** 2 + 1.0))
        ended["unit_variance"] = (trajectory[-1] * scale).ravel().tolist()
    return {
        "kind": case.kind,
        "prediction_type": case.prediction_type,
        "sigmas": case.sigmas.tolist(),
        "timesteps": case.timesteps.tolist(),
        "gain": GAIN,
        "bias": list(BIAS[:steps]),
        **(
            {"start": start.ravel().tolist(), "init_noise_sigma": case.init_noise_sigma}
            if case.more
            else {}
        ),
        "latents": latents.ravel().tolist(),
        "noise": {str(index): values.ravel().tolist() for index, values in fresh.items()},
        "trajectory": [step.ravel().tolist() for step in trajectory],
        **ended,
    }


def _digest(kind: str) -> dict[str, Any]:
    """Take a thousand steps: sigmas[i] is (1000 - i) / 1000, timesteps[i] is 1000 - i."""
    shape = (2, 3, 4, 4)
    timesteps = np.arange(LONG_STEPS, 0, -1)
    sigmas = schedules.flow_sigmas(LONG_STEPS)
    states = list(
        sampling.sample(
            kind,
            lambda model_input, index: model_input * np.float32(GAIN) + np.float32(BIAS[1]),
            noise.initial_latents(7, shape),
            sigmas,
            prediction_type=sampling.SAMPLERS[kind].prediction_types[0],
            timesteps=timesteps.tolist(),
            noise=lambda index: noise.initial_latents(7, shape, stream=index),
        )
    )
    return {
        "kind": kind,
        "prediction_type": sampling.SAMPLERS[kind].prediction_types[0],
        "steps": LONG_STEPS,
        "sigmas": "(1000 - i) / 1000",
        "sigmas_sha256": sha256(sigmas),
        "timesteps": "1000 - i",
        "gain": GAIN,
        "bias": BIAS[1],
        "seed": "7",
        "shape": list(shape),
        "last_sha256": sha256(states[-1]),
        "trajectory_sha256": sha256(np.stack(states)),
    }


def sha256(values: NDArray[np.float32]) -> str:
    """Digest values in C order as little-endian binary32."""
    return hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
