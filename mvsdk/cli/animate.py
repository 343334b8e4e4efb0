"""`mvsdk animate`: a picture becomes a clip that begins with it."""

from __future__ import annotations

import argparse
from functools import partial

from mvsdk.cli.clip import add_clip_arguments, make_clip
from mvsdk.cli.command import Command, named_path, whole_number


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", metavar="IMAGE", type=named_path, help="first frame: PNG JPEG WebP GIF BMP TIFF")
    add("prompt", metavar="PROMPT", nargs="?", help="what is to happen, if the bundle asks")
    # One line for both: the help of a verb fits a screen.
    motion = "0 to 255; --noise-aug S, 0 to 1: further from IMAGE"
    add("--motion", type=whole_number, metavar="N", help=motion)
    add("--noise-aug", type=float, metavar="S", help=argparse.SUPPRESS)
    add_clip_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    return make_clip(
        options,
        task="image_to_video",
        stem=options.image.stem,
        method=lambda pipeline: partial(
            pipeline.animate,
            options.image,
            options.prompt,
            motion=options.motion,
            noise_aug_strength=options.noise_aug,
        ),
        origin={"image": str(options.image), "prompt": options.prompt},
    )


COMMAND = Command(
    name="animate",
    help="make a clip from a picture",
    add_arguments=_add_arguments,
    run=_run,
)
