"""Image to video: a picture becomes a clip that begins with it."""

from __future__ import annotations

from mvsdk.tasks.spec import Argument, NumberOption, TaskSpec

SPEC = TaskSpec(
    name="image_to_video",
    inputs={"picture": (1, 1), "prompt": (0, 1)},
    command="animate",
    help="make a clip from a picture",
    arguments=(
        Argument(name="image", kind="picture", help="first frame"),
        Argument(
            name="prompt",
            kind="prompt",
            help="what is to happen, if the bundle asks",
            required=False,
        ),
    ),
    named_after=("image",),
    numbers=(
        NumberOption(
            flag="--motion",
            name="motion",
            metavar="N",
            whole=True,
            help="0 to 255; --noise-aug S, 0 to 1: further from IMAGE",
        ),
        NumberOption(flag="--noise-aug", name="noise_aug_strength", metavar="S"),
    ),
    method="animate",
    export="mvsdk export --model animator --target onnx",
)
