"""`mvsdk upscale`: a clip becomes a larger one."""

from __future__ import annotations

import argparse
from functools import partial

from mvsdk.cli.clip import add_clip_arguments, make_clip
from mvsdk.cli.command import Command, named_path


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("clip", metavar="CLIP", type=named_path, help="MP4 MOV WebM Matroska AVI GIF WebP")
    add("prompt", metavar="PROMPT", nargs="?", help="what it shows, if the bundle asks")
    add_clip_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    return make_clip(
        options,
        task="upscale",
        stem=options.clip.stem,
        method=lambda pipeline: partial(pipeline.upscale, options.clip, options.prompt),
        origin={"clip": str(options.clip), "prompt": options.prompt},
    )


COMMAND = Command(
    name="upscale",
    help="make a larger clip from a clip",
    add_arguments=_add_arguments,
    run=_run,
)
