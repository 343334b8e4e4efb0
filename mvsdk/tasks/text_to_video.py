"""Text to video: a prompt becomes a clip."""

from __future__ import annotations

from mvsdk.tasks.spec import Argument, TaskSpec

SPEC = TaskSpec(
    name="text_to_video",
    inputs={"prompt": (1, 1)},
    command="generate",
    help="make a clip from a prompt",
    arguments=(Argument(name="prompt", kind="prompt", help="what the clip shows"),),
    named_after=("prompt",),
    method="generate",
    export="mvsdk export --target onnx",
)
