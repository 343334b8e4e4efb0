"""Upscaling: a clip becomes a larger one."""

from __future__ import annotations

from mvsdk.tasks.spec import Argument, TaskSpec

SPEC = TaskSpec(
    name="upscale",
    inputs={"clip": (1, 1), "prompt": (0, 1)},
    command="upscale",
    help="make a larger clip from a clip",
    arguments=(
        Argument(name="clip", kind="clip"),
        Argument(
            name="prompt", kind="prompt", help="what it shows, if the bundle asks", required=False
        ),
    ),
    named_after=("clip",),
    method="upscale",
)
