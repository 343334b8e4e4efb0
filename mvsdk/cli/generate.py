"""`mvsdk generate`: a prompt becomes a clip."""

from __future__ import annotations

import argparse
from functools import partial

from mvsdk.cli.clip import add_clip_arguments, make_clip
from mvsdk.cli.command import Command


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what the clip shows")
    add_clip_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    return make_clip(
        options,
        task="text_to_video",
        stem=options.prompt,
        method=lambda pipeline: partial(pipeline.generate, options.prompt),
        origin={"prompt": options.prompt},
    )


COMMAND = Command(
    name="generate",
    help="make a clip from a prompt",
    add_arguments=_add_arguments,
    run=_run,
)
