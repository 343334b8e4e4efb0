"""`mvsdk upscale`: a clip becomes a larger one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from mvsdk.cli.clip import add_file_arguments, add_model_arguments, add_number_argument, make_clip
from mvsdk.cli.command import Command, named_path

if TYPE_CHECKING:
    from mvsdk.generation import Step
    from mvsdk.pipeline import Pipeline
    from mvsdk.video import Video


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("clip", metavar="CLIP", type=named_path, help="MP4 MOV WebM Matroska AVI GIF WebP")
    add_number_argument(parser)
    add_model_arguments(parser)
    add_file_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    def make(pipeline: Pipeline, on_step: Callable[[Step], object]) -> Video:
        return pipeline.upscale(
            options.clip,
            numbers=dict(options.number or ()),
            num_inference_steps=options.steps,
            seed=options.seed,
            on_step=on_step,
        )

    return make_clip(
        options,
        task="upscale",
        stem=options.clip.stem,
        make=make,
        origin={"clip": str(options.clip)},
    )


COMMAND = Command(
    name="upscale",
    help="make a larger clip from a clip",
    add_arguments=_add_arguments,
    run=_run,
)
