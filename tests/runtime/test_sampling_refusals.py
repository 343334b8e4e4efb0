"""What samplers refuse: shapes, kinds of predictions, schedules, unknown names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sampler_trajectories import (
    ABOVE_ZERO,
    EPS,
    FLOW,
    KINDS,
    LCM,
    TO_ZERO,
    fresh_noise,
    identity,
    start,
)

from mvsdk import sampling
from mvsdk.errors import InputError, MvsdkError, ScheduleError


@pytest.mark.parametrize("kind", KINDS)
def test_networks_that_change_the_shape_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"model_output has shape \(1,\), latents have") as caught:
        next(start(kind, lambda x, index: np.zeros(1, np.float32)))
    assert isinstance(caught.value, MvsdkError)


@pytest.mark.parametrize("kind", ["flow_consistency", "lcm", "euler_ancestral"])
def test_noise_of_another_shape_is_refused(kind: str) -> None:
    states = start(kind, identity, fresh=lambda index: np.zeros((5,), np.float32))
    with pytest.raises(InputError, match=r"noise has shape \(5,\), latents have"):
        next(states)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_of_another_family_are_refused(kind: str) -> None:
    foreign = "epsilon" if kind.startswith("flow") else "velocity"
    with pytest.raises(InputError, match=f"prediction_type of sampler {kind} is '{foreign}'"):
        start(kind, identity, foreign)


@pytest.mark.parametrize("kind", TO_ZERO)
def test_schedules_that_end_above_zero_are_refused(kind: str) -> None:
    with pytest.raises(ScheduleError, match=r"end in 0.5; allowed: 0;"):
        next(start(kind, identity, sigmas=[1.0, 0.5]))


def test_samplers_of_the_variance_exploding_path_may_end_above_zero() -> None:
    assert ABOVE_ZERO == ("edm_euler", "euler_ancestral")
    for kind in ABOVE_ZERO:
        assert len(list(start(kind, identity, sigmas=[1.0, 0.5]))) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigmas", [[0.5, 1.0, 0.0], [1.0, -0.5], [1.0, math.nan, 0.0]])
def test_schedules_that_do_not_fall_to_zero_are_refused(kind: str, sigmas: list[float]) -> None:
    with pytest.raises(ScheduleError, match="allowed: "):
        next(start(kind, identity, sigmas=sigmas))


@pytest.mark.parametrize("kind", ["flow_euler", "flow_consistency"])
def test_flow_levels_above_one_are_refused(kind: str) -> None:
    with pytest.raises(ScheduleError, match=r"sigmas start at 2.0; allowed: at most 1.0"):
        next(start(kind, identity, sigmas=[2.0, 0.0]))


def test_lcm_refuses_timesteps_of_another_length() -> None:
    states = sampling.sample_lcm(
        identity,
        EPS,
        LCM,
        prediction_type="epsilon",
        timesteps=[999, 499],
        noise=fresh_noise,
    )
    with pytest.raises(ScheduleError, match="2 timesteps for 5 sigmas"):
        next(states)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown sampler 'heun'; known: flow_euler, "):
        sampling.sample(
            "heun", identity, EPS, FLOW, prediction_type="sample", timesteps=[], noise=fresh_noise
        )
    with pytest.raises(InputError, match="unknown prediction_type 'noise'; known: velocity, "):
        sampling.to_denoised(EPS, EPS, 1.0, prediction_type="noise")  # type: ignore[arg-type]
