"""`mvsdk generate`: a prompt becomes a clip."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from mvsdk._text import quoted
from mvsdk.cli.clip import add_file_arguments, add_model_arguments, add_number_argument, make_clip
from mvsdk.cli.command import Command
from mvsdk.cli.output import say
from mvsdk.errors import InputError

if TYPE_CHECKING:
    from mvsdk.generation import Step
    from mvsdk.pipeline import Pipeline
    from mvsdk.tokenizers import Tokenizer
    from mvsdk.video import Video

_SHOWN_WORDS = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what the clip shows")
    add_number_argument(parser)
    add_model_arguments(parser)
    add_file_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    from mvsdk.video import check_fps

    def make(pipeline: Pipeline, on_step: Callable[[Step], object]) -> Video:
        _check_words(pipeline.tokenizer(), options.prompt)
        return pipeline.generate(
            options.prompt,
            numbers=dict(options.number or ()),
            num_inference_steps=options.steps,
            seed=options.seed,
            on_step=on_step,
        )

    if options.fps is not None:
        check_fps(options.fps)
    return make_clip(
        options,
        task="text_to_video",
        stem=options.prompt,
        make=make,
        origin={"prompt": options.prompt},
    )


COMMAND = Command(
    name="generate",
    help="make a clip from a prompt",
    add_arguments=_add_arguments,
    run=_run,
)


def _check_words(tokenizer: Tokenizer, prompt: str) -> None:
    """Say which words the model does not know; refuse a prompt of none that it does."""
    unknown = tokenizer.unknown_words(prompt)
    if unknown and not tokenizer.knows_a_word(prompt):
        raise InputError(
            f"this model knows no word of the prompt {quoted(prompt, 40)}; use other words"
        )
    if unknown:
        shown = ", ".join(word[:24] for word in unknown[:_SHOWN_WORDS])
        more = f" and {len(unknown) - _SHOWN_WORDS} more" if len(unknown) > _SHOWN_WORDS else ""
        say(f"note: not in this model's vocabulary: {shown}{more}")
