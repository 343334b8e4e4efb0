"""`mvsdk animate`: a picture becomes a clip that begins with it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from mvsdk.cli.clip import add_file_arguments, add_model_arguments, make_clip
from mvsdk.cli.command import Command, named_path, whole_number

if TYPE_CHECKING:
    from mvsdk.generation import Step
    from mvsdk.pipeline import Pipeline
    from mvsdk.video import Video


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", metavar="IMAGE", type=named_path, help="first frame: PNG JPEG WebP GIF BMP TIFF")
    add("--motion", type=whole_number, metavar="N", help="0 to 255; default: the bundle's")
    add("--noise-aug", type=float, metavar="S", help="0 to 1: more lets the clip leave IMAGE")
    add_model_arguments(parser)
    add_file_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    def make(pipeline: Pipeline, on_step: Callable[[Step], object]) -> Video:
        return pipeline.animate(
            options.image,
            motion=options.motion,
            fps=options.fps,
            noise_aug_strength=options.noise_aug,
            num_inference_steps=options.steps,
            seed=options.seed,
            on_step=on_step,
        )

    return make_clip(
        options,
        task="image_to_video",
        stem=options.image.stem,
        make=make,
        origin={"image": str(options.image)},
    )


COMMAND = Command(
    name="animate",
    help="make a clip from a picture",
    add_arguments=_add_arguments,
    run=_run,
)
