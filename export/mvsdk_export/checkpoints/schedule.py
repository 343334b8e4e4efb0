"""From a model's scheduler configuration to the sampler section of a bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mvsdk.errors import ScheduleError
from mvsdk.manifest import Sampler, Schedule
from mvsdk.samplers import SamplerKind
from mvsdk.schedules import (
    alphas_cumprod,
    alphas_cumprod_sigmas,
    edm_timesteps,
    flow_sigmas,
    karras_sigmas,
    lcm_timesteps,
    leading_timesteps,
    linspace_timesteps,
    trailing_timesteps,
)
from mvsdk_export.checkpoints.scheduler import (
    DiscreteSampler,
    DiscreteScheduler,
    EDMScheduler,
    FlowScheduler,
    OneStepScheduler,
    Scheduler,
)
from mvsdk_export.errors import ExportError


def make_sampler(
    scheduler: Scheduler,
    steps: Sequence[int],
    default_steps: int,
) -> Sampler:
    """Write out the noise levels and network times of every wanted number of steps.

    Args:
        scheduler: How the denoiser was trained.
        steps: Numbers of steps to write schedules for.
        default_steps: The number that a runtime takes unless told otherwise.

    Raises:
        ScheduleError: If there are no noise levels for a wanted number of steps.
        ExportError: If a denoiser of one step shall take more.
    """
    match scheduler:
        case FlowScheduler():
            sigmas = {count: flow_sigmas(count, shift=scheduler.shift) for count in steps}
            scale = scheduler.num_train_timesteps
            return Sampler(
                kind=scheduler.kind,
                prediction_type=scheduler.prediction_type,
                schedules={
                    count: _schedule(levels, levels[:-1].astype(np.float64) * scale)
                    for count, levels in sigmas.items()
                },
                default_steps=default_steps,
            )
        case EDMScheduler():
            low, high, rho = scheduler.sigma_min, scheduler.sigma_max, scheduler.rho
            sigmas = {count: karras_sigmas(count, low, high, rho) for count in steps}
            return Sampler(
                kind="edm_euler",
                prediction_type=scheduler.prediction_type,
                schedules={
                    count: _schedule(levels, edm_timesteps(levels))
                    for count, levels in sigmas.items()
                },
                default_steps=default_steps,
                # Noise on top of nothing: clean latents have unit variance too.
                init_noise_sigma=math.hypot(scheduler.sigma_max, 1.0),
            )
        case OneStepScheduler():
            if list(steps) != [1]:
                raise ExportError(
                    f"this denoiser makes a clip in 1 step, got {', '.join(map(str, steps))}; "
                    "use --steps 1"
                )
            # The noise level that it was trained at is part of its graph, which maps unit noise to
            # clean latents.
            return Sampler(
                kind="flow_euler",
                prediction_type="sample",
                schedules={1: Schedule(sigmas=(1.0, 0.0), timesteps=(1.0,))},
                default_steps=1,
            )
        case DiscreteScheduler():
            return _discrete_sampler(scheduler, steps, default_steps)


def _discrete_sampler(
    scheduler: DiscreteScheduler, steps: Sequence[int], default_steps: int
) -> Sampler:
    alphas = alphas_cumprod(
        scheduler.beta_start,
        scheduler.beta_end,
        beta_schedule=scheduler.beta_schedule,
        num_train_timesteps=scheduler.num_train_timesteps,
    )
    kind: SamplerKind = "edm_euler"
    if scheduler.sampler in ("lcm", "euler_ancestral"):
        kind = scheduler.sampler
    # DDIM without fresh noise is Euler in noise per signal; it may end above 0.
    ends_at_one = scheduler.sampler != "ddim" or scheduler.set_alpha_to_one
    schedules: dict[int, Schedule] = {}
    for count in steps:
        timesteps = _discrete_timesteps(scheduler, count)
        levels = alphas_cumprod_sigmas(
            alphas, timesteps, final_alpha=1.0 if ends_at_one else float(alphas[0])
        )
        schedules[count] = _schedule(levels, timesteps.astype(np.float64))
    return Sampler(
        kind=kind,
        prediction_type=scheduler.prediction_type,
        schedules=schedules,
        default_steps=default_steps,
        init_noise_sigma=_start_of(scheduler.sampler, schedules),
    )


def _discrete_timesteps(
    scheduler: DiscreteScheduler, steps: int
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Return which of the timesteps of training a clip of some steps is sampled at."""
    most = scheduler.num_train_timesteps
    match scheduler.sampler:
        case "euler_trailing":
            return trailing_timesteps(steps, num_train_timesteps=most)
        case "lcm":
            return lcm_timesteps(steps, num_train_timesteps=most)
        case "euler_ancestral":
            return linspace_timesteps(steps, num_train_timesteps=most)
        case "ddim":
            if scheduler.ddim_spacing == "linspace":
                return np.rint(linspace_timesteps(steps, num_train_timesteps=most))
            if scheduler.ddim_spacing == "trailing":
                return trailing_timesteps(steps, num_train_timesteps=most)
            offset = scheduler.steps_offset
            return leading_timesteps(steps, num_train_timesteps=most, steps_offset=offset)


def _start_of(sampler: DiscreteSampler, schedules: Mapping[int, Schedule]) -> float:
    """Return what noise is multiplied with before the first step, as diffusers' samplers do.

    Raises:
        ScheduleError: If it is not the same for all numbers of steps.
    """
    if sampler == "lcm":
        return 1.0
    starts = {steps: schedule.sigmas[0] for steps, schedule in schedules.items()}
    (few, first), *others = sorted(starts.items())
    for steps, start in others:
        if start != first:
            raise ScheduleError(
                f"the sampler {sampler} begins at noise level {first:g} for {few} steps and at "
                f"{start:g} for {steps}, and a bundle has one beginning; choose one number of "
                "steps, or the sampler euler_trailing"
            )
    return math.hypot(first, 1.0) if sampler == "ddim" else first


def _schedule(sigmas: NDArray[np.float32], timesteps: NDArray[np.floating]) -> Schedule:
    return Schedule(
        sigmas=tuple(float(x) for x in sigmas), timesteps=tuple(float(x) for x in timesteps)
    )
