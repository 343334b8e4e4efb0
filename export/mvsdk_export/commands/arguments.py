"""Arguments that several verbs of the toolchain share, and how they are read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mvsdk._text import quoted
from mvsdk.cli.command import named_path, whole_number
from mvsdk.devices import CHIPSETS, DEFAULT_CHIPSETS, find_chipset
from mvsdk.errors import InputError
from mvsdk.manifest import Precision
from mvsdk_export.checkpoints import ModelFolder, default_model_folder, open_model
from mvsdk_export.families import Recipe, find_recipe

DEFAULT_MODEL = "sticker"
MAX_GUIDANCE = 100.0


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: str) -> None:
    """Add --model and --checkpoint.

    Args:
        parser: Gets the arguments.
        checkpoint: What help says of a checkpoint.
    """
    parser.add_argument("--model", help=f"recipe (default: the checkpoint's, else {DEFAULT_MODEL})")
    parser.add_argument("--checkpoint", metavar="DIR", type=named_path, help=checkpoint)


def open_chosen_model(
    model: str | None, checkpoint: Path | None, decoder: Path | None = None
) -> ModelFolder:
    """Open the model folder that --model, --checkpoint and --decoder mean.

    Raises:
        ExportError: If no recipe has that name, or its weights are not shipped.
        CheckpointError: If the folder is none of that recipe, or damaged, or the decoder's is.
    """
    recipe = None if model is None else find_recipe(model)
    if checkpoint is None:
        checkpoint = default_model_folder(model or DEFAULT_MODEL)
    return open_model(checkpoint, recipe, decoder=decoder)


def default_frames(recipe: Recipe, configs: Mapping[str, Any]) -> int:
    """Return the frames of a clip unless told otherwise.

    Args:
        recipe: The model.
        configs: Component name -> configuration of its network.

    Returns:
        What the checkpoint's denoiser was trained for, or the recipe's number where that is out of
        its range.
    """
    num_frames: int = getattr(configs[recipe.denoiser], "num_frames", recipe.num_frames)
    least, most = recipe.frame_range
    return num_frames if least <= num_frames <= most else recipe.num_frames


def add_guidance_argument(parser: argparse.ArgumentParser) -> None:
    """Add --guidance."""
    parser.add_argument(
        "--guidance", metavar="A,B", help="of the first and last frame, or none (SVD: 1,3)"
    )


def read_guidance(text: str | None, recipe: Recipe) -> tuple[float, float] | None:
    """Read the guidance of the first and the last frame; None for none.

    Args:
        text: A pair of numbers, or "none"; None means what the recipe says.
        recipe: The model.

    Raises:
        InputError: If it is no pair of numbers, or the model's graph holds no guidance.
    """
    if text is None:
        return recipe.default_guidance
    if text == "none":
        return None
    if not recipe.takes_guidance:
        raise InputError(
            f"--guidance does not go with this checkpoint of {recipe.name}: its denoiser is "
            "trained to do without; leave it out"
        )
    try:
        first, last = (float(word) for word in text.split(","))
    except ValueError as exc:
        raise InputError(
            f"--guidance is {quoted(text)}, expected those of the first and the last frame, such "
            "as 1,3, or none"
        ) from exc
    if not all(math.isfinite(x) and 0.0 <= x <= MAX_GUIDANCE for x in (first, last)):
        raise InputError(f"--guidance is {quoted(text)}, allowed: 0 to {MAX_GUIDANCE:g} each")
    return first, last


def read_picture_folder(folder: Path | None, recipe: Recipe) -> Path | None:
    """Return the folder of --pictures; None for the pictures that the recipe names.

    Raises:
        InputError: If clips of the model are made of a prompt.
    """
    if folder is None or (recipe.task != "text_to_video" and not recipe.takes_text):
        return folder
    raise InputError(f"--pictures goes with image-to-video models, {recipe.name} takes prompts")


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --frames, --height, --width and --steps."""
    sizes = "of a clip; so --height N and --width N, in pixels"
    parser.add_argument("--frames", metavar="N", type=whole_number, help=sizes)
    # Told in the line above: the help of a verb fits a screen.
    for name in ("--height", "--width"):
        parser.add_argument(name, metavar="N", type=whole_number, help=argparse.SUPPRESS)
    parser.add_argument("--steps", metavar="N,...", help="step counts, such as 1,2,4")


def add_decoder_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --decoder and --decode-frames."""
    parser.add_argument(
        "--decoder",
        metavar="DIR",
        type=named_path,
        help="AutoencoderTiny; --decode-frames N at once",
    )
    parser.add_argument("--decode-frames", metavar="N", type=whole_number, help=argparse.SUPPRESS)


def read_steps(text: str) -> tuple[int, ...]:
    """Read step counts.

    Raises:
        InputError: If they are not whole numbers with commas between.
    """
    try:
        return tuple(dict.fromkeys(whole_number(word) for word in text.split(",")))
    except argparse.ArgumentTypeError as exc:
        raise InputError(
            f"--steps is {quoted(text)}, expected step counts with commas between, such as 1,2,4"
        ) from exc


def read_precisions(text: str, known: Sequence[Precision]) -> tuple[Precision, ...]:
    """Read precisions; "all" means every known one.

    Raises:
        InputError: If one is not known.
    """
    words = list(known) if text == "all" else text.split(",")
    for word in words:
        if word not in known:
            raise InputError(f"unknown precision {quoted(word)}; known: {', '.join(known)}, all")
    return cast("tuple[Precision, ...]", tuple(dict.fromkeys(words)))


def read_chips(text: str | None, *, every: bool = True) -> tuple[str, ...]:
    """Read names of chips; None means the tested ones.

    Args:
        text: Names with commas between, or "all".
        every: Whether "all" means every known chip, or every tested one.

    Raises:
        InputError: If one is not known.
    """
    if text is None or (text == "all" and not every):
        return tuple(chip.slug for chip in DEFAULT_CHIPSETS)
    if text == "all":
        return tuple(chip.slug for chip in CHIPSETS)
    return tuple(dict.fromkeys(find_chipset(word.strip()).slug for word in text.split(",")))
