"""Sampler sections of bundles from the schedulers of checkpoints."""

from __future__ import annotations

import math
import re

import pytest

pytest.importorskip("torch")

from mvsdk.schedules import flow_sigmas
from mvsdk_export.checkpoints.schedule import make_sampler
from mvsdk_export.checkpoints.scheduler import EDMScheduler, FlowScheduler, OneStepScheduler
from mvsdk_export.errors import ExportError


def test_flow_gets_shifted_levels_and_scaled_times() -> None:
    scheduler = FlowScheduler(
        kind="flow_euler", prediction_type="velocity", shift=3.0, num_train_timesteps=1000
    )
    sampler = make_sampler(scheduler, [1, 4], 4)
    assert (sampler.kind, sampler.prediction_type) == ("flow_euler", "velocity")
    four = sampler.schedules[4]
    assert four.sigmas == tuple(map(float, flow_sigmas(4, shift=3.0)))
    assert four.timesteps == tuple(1000 * sigma for sigma in four.sigmas[:-1])
    assert sampler.init_noise_sigma == 1.0


def test_edm_gets_the_levels_of_karras_and_quarter_logarithms() -> None:
    """The levels are those of SF-V for four steps: 700, 70.54, 2.269, 0.002."""
    sampler = make_sampler(EDMScheduler(), [4], 4)
    assert (sampler.kind, sampler.prediction_type) == ("edm_euler", "v_prediction")
    sigmas = sampler.schedules[4].sigmas
    assert sigmas == pytest.approx((700, 70.54, 2.269, 0.002, 0), rel=1e-3)
    expected = [math.log(sigma) / 4 for sigma in sigmas[:-1]]
    assert sampler.schedules[4].timesteps == pytest.approx(expected, rel=1e-6)
    assert sampler.init_noise_sigma == pytest.approx(math.sqrt(700**2 + 1))


@pytest.mark.parametrize("steps", [4, 25])
def test_edm_gets_the_levels_and_times_of_the_public_scheduler(steps: int) -> None:
    pytest.importorskip("diffusers")
    from tiny_svd import public_scheduler, quiet

    scheduler = public_scheduler()
    with quiet():
        scheduler.set_timesteps(steps)
    sampler = make_sampler(EDMScheduler(), [steps], steps)
    schedule = sampler.schedules[steps]
    assert schedule.sigmas == pytest.approx(scheduler.sigmas.tolist(), rel=1e-6)
    assert schedule.timesteps == pytest.approx(scheduler.timesteps.tolist(), rel=1e-6)
    assert sampler.init_noise_sigma == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-6)


def test_one_step_maps_unit_noise_to_the_clip() -> None:
    sampler = make_sampler(OneStepScheduler(), [1], 1)
    assert (sampler.kind, sampler.prediction_type) == ("flow_euler", "sample")
    assert sampler.schedules[1].sigmas == (1.0, 0.0)
    assert sampler.init_noise_sigma == 1.0


@pytest.mark.parametrize("steps", [(4,), (1, 4)])
def test_denoiser_of_one_step_refuses_more(steps: tuple[int, ...]) -> None:
    wanted = f"in 1 step, got {', '.join(map(str, steps))}; use --steps 1"
    with pytest.raises(ExportError, match=re.escape(wanted)):
        make_sampler(OneStepScheduler(), steps, steps[0])
