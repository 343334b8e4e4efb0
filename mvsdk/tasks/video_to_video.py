"""Video to video: a clip becomes another, mostly by an instruction."""

from __future__ import annotations

from mvsdk.tasks.spec import Argument, TaskSpec

SPEC = TaskSpec(
    name="video_to_video",
    inputs={"clip": (1, 1), "prompt": (0, 1)},
    command="edit",
    help="make a clip from a clip, by an instruction",
    arguments=(
        Argument(name="clip", kind="clip"),
        Argument(name="prompt", kind="prompt", help="what is to become of it", required=False),
    ),
    named_after=("prompt", "clip"),
    method="edit",
)
