"""From a model's scheduler configuration to the sampler section of a bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvsdk.manifest import Sampler, Schedule
from mvsdk.schedules import edm_timesteps, flow_sigmas, karras_sigmas
from mvsdk_export.checkpoints.scheduler import (
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


def _schedule(sigmas: NDArray[np.float32], timesteps: NDArray[np.floating]) -> Schedule:
    return Schedule(
        sigmas=tuple(float(x) for x in sigmas), timesteps=tuple(float(x) for x in timesteps)
    )
