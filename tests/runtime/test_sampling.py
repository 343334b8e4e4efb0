"""Samplers against closed forms: identities, published formulas, orders of convergence."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sampler_trajectories import (
    ALPHAS,
    DATA,
    EDM,
    EPS,
    FLOW,
    KINDS,
    LCM_TIMESTEPS,
    LINSPACE,
    SHAPE,
    fresh_noise,
    identity,
    schedule_of,
    start,
)

from mvsdk import noise, sampling, schedules

LEADING_TIMESTEPS = schedules.leading_timesteps(8, steps_offset=1)
DDIM = schedules.alphas_cumprod_sigmas(ALPHAS, LEADING_TIMESTEPS, final_alpha=float(ALPHAS[0]))


@pytest.mark.parametrize("sigma", [700.0, 70.54, 2.2691, 1.0, 0.1, 0.002])
def test_v_prediction_from_the_exact_network_gives_the_data(sigma: float) -> None:
    a, b = 1.0 / math.sqrt(sigma**2 + 1.0), sigma / math.sqrt(sigma**2 + 1.0)
    model_input, v = (a * DATA + b * EPS).astype("f4"), (a * EPS - b * DATA).astype("f4")
    denoised = sampling.to_denoised(v, model_input, sigma, prediction_type="v_prediction")
    assert denoised.dtype == np.float32
    np.testing.assert_allclose(denoised, DATA, atol=1e-6)


@pytest.mark.parametrize("sigma", [14.6, 1.0, 0.03])
def test_epsilon_from_the_exact_network_gives_the_data(sigma: float) -> None:
    model_input = ((DATA + sigma * EPS) / math.sqrt(sigma**2 + 1.0)).astype("f4")
    denoised = sampling.to_denoised(EPS, model_input, sigma, prediction_type="epsilon")
    np.testing.assert_allclose(denoised, DATA, atol=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 0.75, 0.1])
def test_velocity_from_the_exact_network_gives_the_data(sigma: float) -> None:
    model_input = ((1.0 - sigma) * DATA + sigma * EPS).astype("f4")
    denoised = sampling.to_denoised(EPS - DATA, model_input, sigma, prediction_type="velocity")
    np.testing.assert_allclose(denoised, DATA, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_euler_is_exact_on_a_linear_ode(steps: int) -> None:
    slope = (np.rint(8.0 * DATA) / 8.0).astype(np.float32)
    latents = (np.rint(8.0 * EPS) / 8.0).astype(np.float32)
    sigmas = schedules.flow_sigmas(steps)
    states = list(
        sampling.sample_flow_euler(
            lambda _, index: slope, latents, sigmas, prediction_type="velocity"
        )
    )
    for state, sigma in zip(states, sigmas[1:], strict=True):
        np.testing.assert_array_equal(state, latents - (1.0 - sigma) * slope)


@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_euler_follows_a_straight_flow_to_the_data(steps: int) -> None:
    sigmas = schedules.flow_sigmas(steps, shift=3.0)
    states = list(
        sampling.sample_flow_euler(
            lambda _, index: EPS - DATA, EPS, sigmas, prediction_type="velocity"
        )
    )
    assert len(states) == steps
    for state, sigma in zip(states, sigmas[1:], strict=True):
        np.testing.assert_allclose(state, (1.0 - sigma) * DATA + sigma * EPS, atol=5e-6)


def test_euler_step_equals_the_textbook_form() -> None:
    def denoise(model_input: sampling.Latents, index: int) -> sampling.Latents:
        return np.tanh(model_input) + np.float32(0.1 * index)

    expected = EPS.astype(np.float64)
    for index, (sigma, sigma_next) in enumerate(pairwise(FLOW.tolist())):
        expected = expected + (sigma_next - sigma) * (np.tanh(expected) + 0.1 * index)
    *_, last = sampling.sample_flow_euler(denoise, EPS, FLOW, prediction_type="velocity")
    np.testing.assert_allclose(last, expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["flow_euler", "flow_consistency", "edm_euler", "euler_ancestral"])
def test_last_step_lands_on_the_denoised_estimate_exactly(kind: str) -> None:
    *_, last = start(kind, lambda x, index: DATA * np.float32(index - 1.25))
    np.testing.assert_array_equal(last, DATA * np.float32(1.75))


@pytest.mark.parametrize("kind", ["flow_euler", "flow_consistency"])
def test_velocity_and_sample_predictions_give_the_same_flow(kind: str) -> None:
    by_sample = start(kind, lambda x, index: np.tanh(x))
    sigmas = FLOW.tolist()
    by_velocity = start(kind, lambda x, index: (x - np.tanh(x)) / sigmas[index], "velocity")
    for first, second in zip(by_sample, by_velocity, strict=True):
        np.testing.assert_allclose(first, second, atol=2e-6)


def test_edm_euler_with_the_exact_network_moves_along_the_noise_ray() -> None:
    def denoise(model_input: sampling.Latents, index: int) -> sampling.Latents:
        sigma = float(EDM[index])
        a, b = 1.0 / math.sqrt(sigma**2 + 1.0), sigma / math.sqrt(sigma**2 + 1.0)
        np.testing.assert_allclose(model_input, a * DATA + b * EPS, atol=1e-4)
        return (a * EPS - b * DATA).astype(np.float32)

    latents = (DATA + 700.0 * EPS).astype(np.float32)
    states = list(sampling.sample_edm_euler(denoise, latents, EDM, prediction_type="v_prediction"))
    for state, sigma in zip(states, EDM[1:].tolist(), strict=True):
        np.testing.assert_allclose(state, DATA + sigma * EPS, rtol=1e-5, atol=1e-5)


def test_edm_euler_step_equals_the_textbook_form() -> None:
    expected = 700.0 * EPS.astype(np.float64)
    for sigma, sigma_next in pairwise(EDM.tolist()):
        output = np.tanh(expected / math.sqrt(sigma**2 + 1.0))
        denoised = expected / (sigma**2 + 1.0) - output * sigma / math.sqrt(sigma**2 + 1.0)
        expected = expected + (sigma_next - sigma) * (expected - denoised) / sigma
    *_, last = sampling.sample_edm_euler(
        lambda x, index: np.tanh(x),
        np.float32(700.0) * EPS,
        EDM,
        prediction_type="v_prediction",
    )
    np.testing.assert_allclose(last, expected, atol=2e-5)


def test_edm_one_step_form_is_the_negated_network() -> None:
    seen: list[sampling.Latents] = []

    def denoise(model_input: sampling.Latents, index: int) -> sampling.Latents:
        seen.append(model_input)
        return DATA

    (last,) = sampling.sample_edm_euler(
        denoise,
        np.float32(700.0) * EPS,
        schedules.karras_sigmas(1, 0.002, 700.0),
        prediction_type="v_prediction",
    )
    np.testing.assert_allclose(seen[0], 1.42857e-3 * 700.0 * EPS, rtol=2e-6)
    np.testing.assert_allclose(last, 2.04e-6 * 700.0 * EPS - 0.999999 * DATA, atol=2e-6)
    np.testing.assert_allclose(last, -DATA, atol=2e-3 * np.abs(EPS).max())


def test_edm_euler_converges_with_first_order_on_gaussian_data() -> None:
    spread = 0.5

    def error(steps: int) -> float:
        sigmas = schedules.karras_sigmas(steps, 0.01, 10.0)
        gains = spread**2 / (spread**2 + sigmas.astype(np.float64) ** 2)
        scales = np.sqrt(sigmas.astype(np.float64) ** 2 + 1.0)
        latents = EPS * np.float32(math.sqrt(spread**2 + 100.0))
        *_, last = sampling.sample_edm_euler(
            lambda x, index: x * np.float32(gains[index] * scales[index]),
            latents,
            sigmas,
            prediction_type="sample",
        )
        return float(np.abs(last - spread * EPS).max())

    assert error(100) < 0.15 * float(np.abs(EPS).max())
    assert 1.8 < error(100) / error(200) < 2.2


def test_edm_euler_that_ends_above_zero_is_ddim_in_latents_of_unit_variance() -> None:
    """DDIM (eta 0) in its own words: x <- sqrt(a') x0 + sqrt(1 - a') eps, from unit noise."""
    alphas = [*ALPHAS[LEADING_TIMESTEPS].tolist(), float(ALPHAS[0])]
    x = EPS.astype(np.float64)
    latents = EPS * np.float32(math.sqrt(float(DDIM[0]) ** 2 + 1.0))
    states = sampling.sample_edm_euler(
        lambda z, index: np.tanh(z), latents, DDIM, prediction_type="epsilon"
    )
    for sigma, state, (keep, keep_next) in zip(DDIM[1:], states, pairwise(alphas), strict=True):
        eps = np.tanh(x)
        x0 = (x - math.sqrt(1.0 - keep) * eps) / math.sqrt(keep)
        x = math.sqrt(keep_next) * x0 + math.sqrt(1.0 - keep_next) * eps
        np.testing.assert_allclose(state / math.sqrt(1.0 + float(sigma) ** 2), x, atol=5e-6)
    assert float(DDIM[-1]) == pytest.approx(0.0292, abs=5e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_euler_ancestral_equals_the_published_form(prediction_type: Any) -> None:
    """That is x + (s_down - s) (x - x0) / s + s_up n, in float64."""
    asked: list[int] = []

    def recording_noise(index: int) -> sampling.Latents:
        asked.append(index)
        return fresh_noise(index)

    x = EPS.astype(np.float64)
    states = start(
        "euler_ancestral", lambda z, index: np.tanh(z), prediction_type, fresh=recording_noise
    )
    for index, (s, s_next) in enumerate(pairwise(LINSPACE.tolist())):
        a, b = 1.0 / math.sqrt(s**2 + 1.0), s / math.sqrt(s**2 + 1.0)
        m, z = np.tanh(a * x), a * x
        x0 = {"sample": m, "epsilon": x - s * m, "v_prediction": a * z - b * m}[prediction_type]
        up = min(s_next, (s_next**2 * (s**2 - s_next**2) / s**2) ** 0.5)
        down = (s_next**2 - up**2) ** 0.5
        x = x + (down - s) * (x - x0) / s + (up * fresh_noise(index + 1) if up else 0.0)
        np.testing.assert_allclose(next(states), x, rtol=1e-5, atol=2e-5)
    assert asked == [1, 2, 3]


def test_euler_ancestral_with_the_exact_network_keeps_the_level_of_noise() -> None:
    shape = (64, 64, 64)
    clean = np.float32(2.0)
    states = sampling.sample_euler_ancestral(
        lambda z, index: np.full(shape, clean),
        clean + LINSPACE[0] * noise.initial_latents(7, shape),
        LINSPACE,
        prediction_type="sample",
        noise=lambda index: noise.initial_latents(7, shape, stream=index),
    )
    for state, sigma in zip(states, LINSPACE[1:].tolist(), strict=True):
        assert float((state - clean).std()) == pytest.approx(sigma, rel=0.01)


def test_ancestral_levels_add_up_and_never_leave_their_range() -> None:
    levels = [7e2, 14.6, 1.0, math.nextafter(1.0, 0.0), 0.03, 2e-3, 1e-19, 1.5e-45]
    for s, s_next in ((a, b) for a in levels for b in [*levels, 0.0] if b < a):
        up, down = sampling._ancestral_levels(s, s_next)
        assert 0.0 <= up <= s_next
        assert 0.0 <= down <= s_next
        assert math.hypot(up, down) == pytest.approx(s_next, rel=1e-15)
        assert down == pytest.approx(s_next**2 / s, rel=1e-4, abs=2e-8 * s_next)


@pytest.mark.parametrize("sigmas", [[1.0, 0.5], [2.0, 1.0, 0.25]])
def test_euler_ancestral_draws_noise_for_a_last_level_above_zero(sigmas: list[float]) -> None:
    asked: list[int] = []

    def recording_noise(index: int) -> sampling.Latents:
        asked.append(index)
        return fresh_noise(index)

    list(start("euler_ancestral", identity, sigmas=sigmas, fresh=recording_noise))
    assert asked == list(range(1, len(sigmas)))


def test_consistency_renoises_every_step_but_the_last() -> None:
    asked: list[int] = []

    def recording_noise(index: int) -> sampling.Latents:
        asked.append(index)
        return fresh_noise(index)

    states = list(start("flow_consistency", lambda _, index: DATA, fresh=recording_noise))
    assert asked == [1, 2, 3]
    for index, sigma in enumerate(FLOW[1:].tolist(), start=1):
        expected = (1.0 - sigma) * DATA + (sigma * fresh_noise(index) if sigma else 0.0)
        np.testing.assert_allclose(states[index - 1], expected, atol=1e-6)


def test_consistency_with_the_implied_noise_equals_euler() -> None:
    def denoise(model_input: sampling.Latents, index: int) -> sampling.Latents:
        return np.tanh(model_input) * np.float32(0.5 + 0.1 * index)

    inputs: list[sampling.Latents] = [EPS]

    def implied_noise(index: int) -> sampling.Latents:
        sigma = float(FLOW[index - 1])
        denoised = denoise(inputs[-1], index - 1)
        return ((inputs[-1] - (1.0 - sigma) * denoised) / sigma).astype(np.float32)

    euler = start("flow_euler", denoise)
    consistency = start("flow_consistency", denoise, fresh=implied_noise)
    for first, second in zip(euler, consistency, strict=True):
        np.testing.assert_allclose(first, second, atol=2e-6)
        inputs.append(second)


def test_lcm_with_one_step_gives_the_denoised_estimate() -> None:
    timesteps = schedules.lcm_timesteps(1)
    sigmas = schedules.alphas_cumprod_sigmas(schedules.alphas_cumprod(), timesteps)
    (last,) = sampling.sample_lcm(
        lambda x, index: np.tanh(x),
        EPS,
        sigmas,
        prediction_type="epsilon",
        timesteps=timesteps.tolist(),
        noise=fresh_noise,
    )
    expected = sampling.to_denoised(np.tanh(EPS), EPS, float(sigmas[0]), prediction_type="epsilon")
    np.testing.assert_allclose(last, expected, atol=1e-6)


def test_lcm_boundary_condition_keeps_the_input_at_timestep_zero() -> None:
    (last,) = sampling.sample_lcm(
        lambda x, index: DATA,
        EPS,
        np.array([0.03, 0.0], np.float32),
        prediction_type="sample",
        timesteps=[0],
        noise=fresh_noise,
    )
    np.testing.assert_array_equal(last, EPS)


def test_lcm_equals_the_published_form() -> None:
    alphas = schedules.alphas_cumprod()[LCM_TIMESTEPS]
    x = EPS.astype(np.float64)
    asked: list[int] = []

    def recording_noise(index: int) -> sampling.Latents:
        asked.append(index)
        return fresh_noise(index)

    states = start("lcm", lambda x, index: np.tanh(x), "epsilon", fresh=recording_noise)
    for index, (t, state) in enumerate(zip(LCM_TIMESTEPS.tolist(), states, strict=True)):
        x0 = (x - math.sqrt(1.0 - alphas[index]) * np.tanh(x)) / math.sqrt(alphas[index])
        c_skip, c_out = 0.25 / ((10 * t) ** 2 + 0.25), 10 * t / math.sqrt((10 * t) ** 2 + 0.25)
        x = c_out * x0 + c_skip * x
        if index < 3:
            keep = alphas[index + 1]
            x = math.sqrt(keep) * x + math.sqrt(1.0 - keep) * fresh_noise(index + 1)
        np.testing.assert_allclose(state, x, rtol=1e-5, atol=1e-5)
    assert asked == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_samplers_yield_after_each_step_so_the_caller_can_stop(kind: str) -> None:
    calls: list[int] = []

    def denoise(model_input: sampling.Latents, index: int) -> sampling.Latents:
        calls.append(index)
        return model_input * np.float32(0.5)

    states = start(kind, denoise)
    assert calls == []
    next(states)
    assert calls == [0]
    next(states)
    assert calls == [0, 1]
    assert len(list(states)) == 2
    assert calls == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_samplers_keep_float32_and_leave_their_arguments_alone(kind: str) -> None:
    before = EPS.copy()
    sigmas_before = schedule_of(kind)[0].copy()
    for output_type in ("float16", "float32", "float64"):

        def denoise(model_input: Any, index: int, output_type: str = output_type) -> Any:
            return model_input.astype(output_type)

        states = list(start(kind, denoise))
        assert {state.dtype for state in states} == {np.dtype(np.float32)}
        assert {state.shape for state in states} == {SHAPE}
    np.testing.assert_array_equal(EPS, before)
    np.testing.assert_array_equal(schedule_of(kind)[0], sigmas_before)
