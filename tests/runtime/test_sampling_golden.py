"""Samplers against the trajectories of tests/golden/sampling.json."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvsdk import noise, sampling

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/sampling.json").read_text(encoding="utf-8")
)
TRAJECTORIES = [*GOLDEN["trajectories"], *GOLDEN["scaled"], *GOLDEN["last_above_zero"]]


@pytest.mark.parametrize("case", TRAJECTORIES, ids=lambda c: f"{c['kind']}-{c['prediction_type']}")
def test_golden_trajectories(case: dict[str, Any]) -> None:
    gain, bias = np.float32(case["gain"]), np.array(case["bias"], np.float32)
    fresh = {int(k): np.array(values, np.float32) for k, values in case["noise"].items()}
    states = sampling.sample(
        case["kind"],
        lambda x, index: x * gain + bias[index],
        np.array(case["latents"], np.float32),
        np.array(case["sigmas"], np.float32),
        prediction_type=case["prediction_type"],
        timesteps=case["timesteps"],
        noise=fresh.__getitem__,
    )
    assert [state.tolist() for state in states] == case["trajectory"]


@pytest.mark.parametrize("case", [*GOLDEN["scaled"], *GOLDEN["last_above_zero"]])
def test_golden_starts_are_unit_noise_times_its_scale(case: dict[str, Any]) -> None:
    scale = np.float32(case["init_noise_sigma"])
    assert scale != 1.0
    assert (np.array(case["start"], np.float32) * scale).tolist() == case["latents"]


def test_golden_ddim_is_the_last_step_in_unit_variance() -> None:
    (case,) = (case for case in GOLDEN["last_above_zero"] if "unit_variance" in case)
    scale = np.float32(1.0 / math.sqrt(case["sigmas"][-1] ** 2 + 1.0))
    last = np.array(case["trajectory"][-1], np.float32) * scale
    assert last.tolist() == case["unit_variance"]


@pytest.mark.parametrize("case", GOLDEN["thousand_steps"], ids=lambda c: c["kind"])
def test_golden_digests_of_a_thousand_steps(case: dict[str, Any]) -> None:
    steps, gain, bias = case["steps"], np.float32(case["gain"]), np.float32(case["bias"])
    sigmas = np.array([(steps - i) / steps for i in range(steps + 1)], np.float32)
    assert hashlib.sha256(sigmas.astype("<f4").tobytes()).hexdigest() == case["sigmas_sha256"]
    seed, digest, state = int(case["seed"]), hashlib.sha256(), None
    for state in sampling.sample(
        case["kind"],
        lambda x, index: x * gain + bias,
        noise.initial_latents(seed, case["shape"]),
        sigmas,
        prediction_type=case["prediction_type"],
        timesteps=[steps - i for i in range(steps)],
        noise=lambda index: noise.initial_latents(seed, case["shape"], stream=index),
    ):
        digest.update(state.astype("<f4").tobytes())
    assert state is not None
    assert hashlib.sha256(state.astype("<f4").tobytes()).hexdigest() == case["last_sha256"]
    assert digest.hexdigest() == case["trajectory_sha256"]


def test_golden_trajectories_cover_every_sampler_and_prediction_type() -> None:
    assert {(case["kind"], case["prediction_type"]) for case in GOLDEN["trajectories"]} == {
        (kind, item) for kind, row in sampling.SAMPLERS.items() for item in row.prediction_types
    }
    assert {case["kind"] for case in GOLDEN["thousand_steps"]} == set(sampling.SAMPLERS)


def test_golden_trajectories_have_levels_that_are_neighbours_in_float32() -> None:
    kinds = {
        case["kind"]
        for case in GOLDEN["trajectories"]
        for a, b in pairwise(case["sigmas"])
        if np.nextafter(np.float32(a), np.float32(0.0)) == np.float32(b)
    }
    assert kinds == set(sampling.SAMPLERS)
