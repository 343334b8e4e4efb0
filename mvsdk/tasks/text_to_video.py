"""Text to video: a prompt becomes a clip."""

from __future__ import annotations

from mvsdk.tasks.spec import Argument, NumberOption, TaskSpec

SPEC = TaskSpec(
    name="text_to_video",
    inputs={"prompt": (1, 1)},
    command="generate",
    help="make a clip from a prompt",
    arguments=(Argument(name="prompt", kind="prompt", help="what the clip shows"),),
    named_after=("prompt",),
    negative=True,
    numbers=(
        NumberOption(
            flag="--guidance",
            name="guidance_scale",
            metavar="G",
            help="how closely the prompt is followed; --negative-prompt TEXT",
        ),
    ),
    method="generate",
    export="mvsdk export --target onnx",
)
