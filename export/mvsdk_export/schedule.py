"""From a model's scheduler configuration to the sampler section of a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from mvsdk.manifest import Sampler, Schedule
from mvsdk.schedules import flow_sigmas
from mvsdk_export.checkpoints.scheduler import Scheduler


def make_sampler(scheduler: Scheduler, steps: Sequence[int], default_steps: int) -> Sampler:
    """Write out the noise levels and network times of every wanted number of steps.

    Args:
        scheduler: How the denoiser was trained.
        steps: Numbers of steps to write schedules for.
        default_steps: The number that a runtime takes unless told otherwise.
    """
    schedules: dict[int, Schedule] = {}
    for count in steps:
        sigmas = tuple(float(x) for x in flow_sigmas(count, shift=scheduler.shift))
        scale = scheduler.num_train_timesteps
        schedules[count] = Schedule(
            sigmas=sigmas, timesteps=tuple(sigma * scale for sigma in sigmas[:-1])
        )
    return Sampler(
        kind=scheduler.kind,
        prediction_type=scheduler.prediction_type,
        schedules=schedules,
        default_steps=default_steps,
    )
