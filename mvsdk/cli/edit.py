"""`mvsdk edit`: a clip becomes another, mostly by an instruction."""

from __future__ import annotations

import argparse
from functools import partial

from mvsdk.cli.clip import add_clip_arguments, make_clip
from mvsdk.cli.command import Command, named_path


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("clip", metavar="CLIP", type=named_path, help="MP4 MOV WebM Matroska AVI GIF WebP")
    add("prompt", metavar="PROMPT", nargs="?", help="what is to become of it")
    add_clip_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    return make_clip(
        options,
        task="video_to_video",
        stem=options.prompt or options.clip.stem,
        method=lambda pipeline: partial(pipeline.edit, options.clip, options.prompt),
        origin={"clip": str(options.clip), "prompt": options.prompt},
    )


COMMAND = Command(
    name="edit",
    help="make a clip from a clip, by an instruction",
    add_arguments=_add_arguments,
    run=_run,
)
