"""Schedules: published values, identities, golden files and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvsdk import schedules
from mvsdk.errors import MvsdkError, ScheduleError

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/schedules.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 50, 1000])
@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_flow_sigmas_fall_strictly_from_one_to_zero(steps: int, shift: float) -> None:
    sigmas = schedules.flow_sigmas(steps, shift=shift)
    assert sigmas.dtype == np.float32
    assert sigmas.shape == (steps + 1,)
    assert (sigmas[0], sigmas[-1]) == (1.0, 0.0)
    schedules.check_sigmas(sigmas, upper=1.0)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (1.0, (1.0, 0.75, 0.5, 0.25)),
        (3.0, (1.0, 0.9, 0.75, 0.5)),
        (5.0, (1.0, 0.9375, 0.8333, 0.625)),
        (8.0, (1.0, 0.96, 0.8889, 0.7273)),
    ],
)
def test_flow_shift_gives_the_published_table(shift: float, expected: tuple[float, ...]) -> None:
    sigmas = schedules.flow_sigmas(4, shift=shift)
    np.testing.assert_allclose(sigmas, (*expected, 0.0), atol=5e-5)
    np.testing.assert_array_equal(sigmas, schedules.shift_sigmas([1, 0.75, 0.5, 0.25, 0], shift))


def test_shift_of_one_is_the_identity() -> None:
    sigmas = np.array([0.8, 0.3, 0.1, 0.0], np.float32)
    np.testing.assert_array_equal(schedules.shift_sigmas(sigmas, 1.0), sigmas)


def test_shift_by_the_inverse_goes_back() -> None:
    sigmas = schedules.flow_sigmas(10)
    back = schedules.shift_sigmas(schedules.shift_sigmas(sigmas, 5.0), 0.2)
    np.testing.assert_allclose(back, sigmas, atol=3e-7)


def test_shifts_compose_by_multiplication() -> None:
    twice = schedules.shift_sigmas(schedules.flow_sigmas(10, shift=2.0), 3.0)
    np.testing.assert_allclose(twice, schedules.flow_sigmas(10, shift=6.0), atol=1e-6)


def test_dynamic_shift_is_the_exponential_of_a_line_in_tokens() -> None:
    assert schedules.dynamic_shift(256) == math.exp(0.5)
    assert schedules.dynamic_shift(4096) == pytest.approx(math.exp(1.15), rel=1e-14)
    ltx: dict[str, Any] = {"base_shift": 0.95, "max_shift": 2.05, "base_tokens": 1024}
    assert math.log(schedules.dynamic_shift(2560, **ltx)) == pytest.approx(1.5, rel=1e-12)


def test_dynamic_shift_equals_the_published_mu_form() -> None:
    mu = 0.5 + (1.15 - 0.5) * (1000 - 256) / (4096 - 256)
    levels = np.array([1.0, 0.75, 0.5, 0.25])
    published = math.exp(mu) / (math.exp(mu) + (1.0 / levels - 1.0))
    sigmas = schedules.flow_sigmas(4, shift=schedules.dynamic_shift(1000))
    np.testing.assert_allclose(sigmas[:-1], published, rtol=1e-7)


def test_flow_timesteps_are_a_thousand_times_sigma() -> None:
    timesteps = schedules.flow_timesteps(schedules.flow_sigmas(4, shift=3.0))
    np.testing.assert_array_equal(timesteps, np.array([1000, 900, 750, 500], np.float32))


def test_karras_sigmas_give_the_reference_values() -> None:
    sigmas = schedules.karras_sigmas(25, 0.002, 700.0)
    assert sigmas.shape == (26,)
    np.testing.assert_allclose(sigmas[:3], [700.0, 545.73, 421.57], atol=5e-3)
    np.testing.assert_allclose(sigmas[-3:], [0.00788, 0.002, 0.0], atol=5e-6)
    four = schedules.karras_sigmas(4, 0.002, 700.0)
    np.testing.assert_allclose(four, [700.0, 70.54, 2.2691, 0.002, 0.0], rtol=2e-5)


def test_karras_with_one_step_jumps_from_the_largest_level_to_zero() -> None:
    assert schedules.karras_sigmas(1, 0.002, 700.0).tolist() == [700.0, 0.0]


def test_karras_with_rho_one_is_a_straight_line() -> None:
    sigmas = schedules.karras_sigmas(5, 2.0, 10.0, rho=1.0)
    np.testing.assert_allclose(sigmas, [10.0, 8.0, 6.0, 4.0, 2.0, 0.0], rtol=1e-6)


def test_edm_timesteps_give_the_reference_values() -> None:
    timesteps = schedules.edm_timesteps(schedules.karras_sigmas(4, 0.002, 700.0))
    assert timesteps.dtype == np.float32
    assert timesteps.shape == (4,)
    np.testing.assert_allclose(timesteps[[0, -1]], [1.6378, -1.5537], atol=5e-5)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [999]), (2, [999, 499]), (4, [999, 759, 499, 259])]
)
def test_lcm_timesteps_give_the_reference_values(steps: int, expected: list[int]) -> None:
    assert schedules.lcm_timesteps(steps).tolist() == expected


def test_lcm_timesteps_with_every_step_walk_the_whole_grid() -> None:
    assert schedules.lcm_timesteps(50).tolist() == list(range(999, 0, -20))


def test_trailing_timesteps_give_the_reference_values() -> None:
    assert schedules.trailing_timesteps(4).tolist() == [999, 749, 499, 249]
    assert schedules.trailing_timesteps(1).tolist() == [999]
    assert schedules.trailing_timesteps(16)[-1] == 61  # 62.5 rounds to even


def test_leading_timesteps_give_the_reference_values() -> None:
    assert schedules.leading_timesteps(4).tolist() == [750, 500, 250, 0]
    assert schedules.leading_timesteps(5, steps_offset=1).tolist() == [801, 601, 401, 201, 1]
    assert schedules.leading_timesteps(7, steps_offset=1)[0] == 853  # 142 * 6 + 1
    assert schedules.leading_timesteps(1, steps_offset=999).tolist() == [999]


def test_linspace_timesteps_give_the_reference_values() -> None:
    timesteps = schedules.linspace_timesteps(5)
    assert timesteps.dtype == np.float32
    assert timesteps.tolist() == [999.0, 749.25, 499.5, 249.75, 0.0]
    assert schedules.linspace_timesteps(1).tolist() == [0.0]
    ddim = np.rint(schedules.linspace_timesteps(8)).tolist()
    assert ddim == [999, 856, 714, 571, 428, 285, 143, 0]


@pytest.mark.parametrize(
    ("timesteps", "expected"),
    [
        (schedules.linspace_timesteps(5), [14.614647, 4.0860896, 1.6155834, 0.69515097, 0.0291675]),
        (
            schedules.leading_timesteps(5, steps_offset=1),
            [5.1344333, 2.2928548, 1.1682165, 0.57405078, 0.0413145],
        ),
    ],
    ids=["linspace", "leading"],
)
def test_levels_of_stable_diffusion_are_those_of_its_ancestral_scheduler(
    timesteps: Any, expected: list[float]
) -> None:
    sigmas = schedules.alphas_cumprod_sigmas(schedules.alphas_cumprod(), timesteps)
    np.testing.assert_allclose(sigmas, [*expected, 0.0], rtol=2e-6, atol=5e-7)


def test_levels_between_timesteps_are_linear_and_those_at_them_exact() -> None:
    alphas = schedules.alphas_cumprod()
    grid = np.arange(999, -1, -1)
    levels = schedules.alphas_cumprod_sigmas(alphas, grid)
    np.testing.assert_array_equal(
        levels[:-1], np.sqrt((1.0 - alphas[grid]) / alphas[grid]).astype(np.float32)
    )
    between = schedules.alphas_cumprod_sigmas(alphas, np.array([501.25, 0.5], np.float32))
    assert between[0] == pytest.approx(0.25 * levels[997 - 500] + 0.75 * levels[998 - 500])
    assert between[1] == pytest.approx((levels[998] + levels[999]) / 2)


def test_a_final_alpha_is_a_last_level_above_zero() -> None:
    alphas = schedules.alphas_cumprod()
    timesteps = schedules.leading_timesteps(4, steps_offset=1)
    sigmas = schedules.alphas_cumprod_sigmas(alphas, timesteps, final_alpha=float(alphas[0]))
    assert sigmas[-1] == pytest.approx(0.0292, abs=5e-5)
    np.testing.assert_array_equal(
        sigmas[:-1], schedules.alphas_cumprod_sigmas(alphas, timesteps)[:-1]
    )
    schedules.edm_timesteps(sigmas)


def test_alphas_cumprod_give_the_known_range_of_stable_diffusion() -> None:
    alphas = schedules.alphas_cumprod()
    assert alphas.shape == (1000,)
    assert (np.diff(alphas) < 0.0).all()
    assert alphas[0] == pytest.approx(1.0 - 0.00085, rel=1e-12)
    sigmas = schedules.alphas_cumprod_sigmas(alphas, np.array([999, 0]))
    np.testing.assert_allclose(sigmas, [14.6146, 0.029167, 0.0], rtol=1e-5)


def test_linear_betas_keep_less_signal_than_scaled_ones() -> None:
    linear = schedules.alphas_cumprod(beta_schedule="linear")
    assert linear[0] == pytest.approx(1.0 - 0.00085, rel=1e-12)
    assert linear[1] / linear[0] == pytest.approx(1.0 - 0.00085 - (0.012 - 0.00085) / 999)
    assert linear[-1] < schedules.alphas_cumprod()[-1]


def test_alphas_cumprod_sigmas_keep_the_signal_power() -> None:
    alphas = schedules.alphas_cumprod()
    timesteps = schedules.lcm_timesteps(4)
    sigmas = schedules.alphas_cumprod_sigmas(alphas, timesteps).astype(np.float64)
    np.testing.assert_allclose(1.0 / (sigmas[:-1] ** 2 + 1.0), alphas[timesteps], rtol=2e-7)
    assert sigmas[-1] == 0.0


@pytest.mark.parametrize(
    "case", GOLDEN["schedules"], ids=lambda c: f"{c['function']}-{c['arguments']}"
)
def test_golden_schedules(case: dict[str, Any]) -> None:
    values = getattr(schedules, case["function"])(**case["arguments"])
    if case["exact"]:
        assert values.tolist() == case["values"]
    else:
        np.testing.assert_allclose(values, case["values"], rtol=1.2e-7)


@pytest.mark.parametrize(
    ("sigmas", "complaint"),
    [
        ([], "shape"),
        ([0.0], "shape"),
        ([[1.0, 0.0]], "shape"),
        ([1.0, math.nan, 0.0], r"sigmas\[1\] is nan"),
        ([math.inf, 1.0, 0.0], r"sigmas\[0\] is inf"),
        ([1.0, 0.5, 0.5, 0.0], r"sigmas\[1\] is 0.5 and the next is 0.5"),
        ([0.5, 1.0, 0.0], r"sigmas\[0\] is 0.5 and the next is 1.0"),
        ([1.0, 0.5], "end in 0.5"),
        ([1.0, 0.0, -1.0], "end in -1.0"),
        ([1.5, 0.5, 0.0], "start at 1.5; allowed: at most 1.0"),
    ],
)
def test_sigmas_that_no_sampler_can_follow_are_refused(sigmas: list[Any], complaint: str) -> None:
    with pytest.raises(ScheduleError, match=complaint) as caught:
        schedules.check_sigmas(sigmas, upper=1.0)
    assert isinstance(caught.value, MvsdkError)
    assert "\n" not in str(caught.value)


def test_a_last_level_above_zero_needs_permission() -> None:
    schedules.check_sigmas([1.0, 0.5], last_zero=False)
    schedules.check_sigmas([1.0, 0.0], last_zero=False)
    with pytest.raises(ScheduleError, match=r"end in 0.5; allowed: 0;"):
        schedules.check_sigmas([1.0, 0.5])
    with pytest.raises(ScheduleError, match=r"end in -0.5; allowed: 0 or above"):
        schedules.check_sigmas([1.0, -0.5], last_zero=False)


@pytest.mark.parametrize("steps", [0, -4, 1001, 2.5, "4", None])
@pytest.mark.parametrize(
    "build",
    [
        schedules.flow_sigmas,
        lambda steps: schedules.karras_sigmas(steps, 0.002, 700.0),
        schedules.lcm_timesteps,
        schedules.trailing_timesteps,
        schedules.leading_timesteps,
        schedules.linspace_timesteps,
    ],
    ids=["flow", "karras", "lcm", "trailing", "leading", "linspace"],
)
def test_wrong_step_counts_are_refused(build: Any, steps: Any) -> None:
    with pytest.raises(ScheduleError, match=r"num_inference_steps is .*; allowed: "):
        build(steps)


@pytest.mark.parametrize(
    "call",
    [
        lambda: schedules.flow_sigmas(4, shift=0.0),
        lambda: schedules.flow_sigmas(4, shift=-1.0),
        lambda: schedules.flow_sigmas(4, shift=math.nan),
        lambda: schedules.flow_sigmas(4, shift=math.inf),
        lambda: schedules.flow_sigmas(4, shift=1e9),
        lambda: schedules.shift_sigmas([2.0, 0.0], 3.0),
        lambda: schedules.dynamic_shift(0),
        lambda: schedules.dynamic_shift(300, base_tokens=10, max_tokens=10),
        lambda: schedules.karras_sigmas(4, 0.0, 700.0),
        lambda: schedules.karras_sigmas(4, 700.0, 0.002),
        lambda: schedules.karras_sigmas(4, 0.002, math.inf),
        lambda: schedules.karras_sigmas(4, 0.002, 700.0, rho=0.0),
        lambda: schedules.lcm_timesteps(51),
        lambda: schedules.lcm_timesteps(4, original_inference_steps=2000),
        lambda: schedules.trailing_timesteps(4, num_train_timesteps=3),
        lambda: schedules.leading_timesteps(4, num_train_timesteps=3),
        lambda: schedules.leading_timesteps(4, steps_offset=-1),
        lambda: schedules.leading_timesteps(4, steps_offset=250),
        lambda: schedules.leading_timesteps(1000, steps_offset=1),
        lambda: schedules.linspace_timesteps(4, num_train_timesteps=3),
        lambda: schedules.alphas_cumprod(0.0, 0.012),
        lambda: schedules.alphas_cumprod(0.5, 1.0),
        lambda: schedules.alphas_cumprod(num_train_timesteps=0),
        lambda: schedules.alphas_cumprod(beta_schedule="cosine"),  # type: ignore[arg-type]
        lambda: schedules.alphas_cumprod_sigmas(np.array([0.9, 0.5]), np.array([2])),
        lambda: schedules.alphas_cumprod_sigmas(np.array([0.9, 0.5]), np.array([0, 1])),
        lambda: schedules.alphas_cumprod_sigmas(np.array([0.9, 0.5]), np.array([1.5], np.float32)),
        lambda: schedules.alphas_cumprod_sigmas(
            np.array([0.9, 0.5]), np.array([1]), final_alpha=0.0
        ),
        lambda: schedules.alphas_cumprod_sigmas(
            np.array([0.9, 0.5]), np.array([1]), final_alpha=1.1
        ),
        lambda: schedules.alphas_cumprod_sigmas(
            np.array([0.9, 0.5]), np.array([1]), final_alpha=0.4
        ),
    ],
)
def test_arguments_out_of_range_are_refused_in_one_line(call: Any) -> None:
    with pytest.raises(ScheduleError, match=r"allowed: |known: ") as caught:
        call()
    assert "\n" not in str(caught.value)
