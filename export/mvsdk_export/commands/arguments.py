"""Arguments that several verbs of the toolchain share, and how they are read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from mvsdk._text import quoted
from mvsdk.cli.command import named_path, whole_number
from mvsdk.devices import CHIPSETS, DEFAULT_CHIPSETS, find_chipset
from mvsdk.errors import InputError
from mvsdk.manifest import Precision
from mvsdk_export.checkpoints import ModelFolder, default_model_folder, open_model
from mvsdk_export.checkpoints.additions import Additions, LoraChoice
from mvsdk_export.checkpoints.lora import MAX_SCALE
from mvsdk_export.checkpoints.scheduler import DISCRETE_SAMPLERS
from mvsdk_export.families import DECODER, Recipe, find_recipe

DEFAULT_MODEL = "sticker"
MAX_GUIDANCE = 100.0
MAX_TEXT_GUIDANCE = 30.0
"""As the programs that take it from the caller have it."""


def add_model_arguments(parser: argparse.ArgumentParser, checkpoint: str) -> None:
    """Add --model and --checkpoint.

    Args:
        parser: Gets the arguments.
        checkpoint: What help says of a checkpoint.
    """
    parser.add_argument("--model", help=f"recipe (default: the checkpoint's, else {DEFAULT_MODEL})")
    parser.add_argument("--checkpoint", metavar="DIR", type=named_path, help=checkpoint)
    add_addition_arguments(parser)


def add_addition_arguments(parser: argparse.ArgumentParser, *, sampler: bool = True) -> None:
    """Add --motion and --lora, and --sampler where there is a choice."""
    more = "; --sampler NAME" if sampler else ""
    parser.add_argument(
        "--motion",
        metavar="PLACE",
        type=named_path,
        help=f"motion modules; --lora FILE[:SCALE]{more}",
    )
    # Told in the line above: the help of a verb fits a screen.
    parser.add_argument("--lora", metavar="F[:S]", action="append", help=argparse.SUPPRESS)
    if sampler:
        parser.add_argument("--sampler", help=argparse.SUPPRESS)
    else:
        parser.set_defaults(sampler=None)


def read_additions(options: argparse.Namespace) -> Additions:
    """Read what is put beside a model folder: --decoder, --motion, --lora and --sampler.

    Raises:
        InputError: If a scale or the sampler is none.
    """
    if options.sampler not in (None, *DISCRETE_SAMPLERS):
        raise InputError(
            f"unknown sampler {quoted(options.sampler)}; known: {', '.join(DISCRETE_SAMPLERS)}"
        )
    return Additions(
        decoder=options.decoder,
        motion=options.motion,
        loras=tuple(map(_read_lora, options.lora or ())),
        sampler=options.sampler,
    )


def _read_lora(text: str) -> LoraChoice:
    """Read FILE or FILE:SCALE; a colon without a number behind it is part of the name."""
    name, colon, word = text.rpartition(":")
    try:
        scale = float(word) if colon else 1.0
    except ValueError:
        name, scale = text, 1.0
    if not colon:
        name = text
    if not (math.isfinite(scale) and abs(scale) <= MAX_SCALE):
        raise InputError(
            f"the scale of --lora {quoted(text)} is {word[:32]}, allowed: {-MAX_SCALE:g} to "
            f"{MAX_SCALE:g}"
        )
    return LoraChoice(path=named_path(name), scale=scale)


def open_chosen_model(
    model: str | None, checkpoint: Path | None, additions: Additions | None = None
) -> ModelFolder:
    """Open the model folder that --model and --checkpoint mean, with what is put beside it.

    Raises:
        ExportError: If no recipe has that name, or its weights are not shipped.
        CheckpointError: If the folder is none of that recipe, or damaged, or an addition is.
    """
    recipe = None if model is None else find_recipe(model)
    if checkpoint is None:
        checkpoint = default_model_folder(model or DEFAULT_MODEL)
    return open_model(checkpoint, recipe, additions=additions)


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


def check_frames(recipe: Recipe, configs: Mapping[str, Any], frames: int) -> None:
    """Check that the denoiser makes sense of a number of frames, of models with motion modules.

    Raises:
        InputError: If there are too few places for them, or no motion modules at all.
    """
    if recipe.motion is None:
        return
    config = configs[recipe.motion.component]
    if not config.has_motion and frames != 1:
        raise InputError(
            f"--frames {frames} needs motion modules: without them {recipe.name} makes pictures "
            "that know nothing of each other; give --motion, or --frames 1"
        )
    if config.has_motion and frames > config.motion_max_frames:
        most = config.motion_max_frames
        raise InputError(f"--frames {frames} is more than the motion modules know: 1 to {most}")


def default_side(
    recipe: Recipe, configs: Mapping[str, Any], side: Literal["height", "width"]
) -> int:
    """Return height or width of a clip unless told otherwise.

    Returns:
        That which the checkpoint was trained with, where its configuration tells, or the recipe's.
    """
    latents: int = getattr(configs[recipe.denoiser], "sample_size", 0)
    scale: int = getattr(configs.get(DECODER), "scale", 0)
    size = latents * scale
    least, most = recipe.size_range
    if size and least <= size <= most and size % recipe.size_multiple == 0:
        return size
    return recipe.height if side == "height" else recipe.width


def add_guidance_argument(parser: argparse.ArgumentParser) -> None:
    """Add --guidance."""
    parser.add_argument(
        "--guidance", metavar="G", help="1.5; of the first and last frame 1,3 (SVD); or none"
    )


def read_guidance(text: str | None, recipe: Recipe) -> tuple[float, float] | None:
    """Read the guidance of the first and the last frame; None for none.

    Args:
        text: A number, or a pair of them where frames differ, or "none"; None means what the
            recipe says.
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
        scales = tuple(float(word) for word in text.split(","))
        first, last = scales * 2 if recipe.guidance == "text" else scales
    except ValueError as exc:
        what = "a number, such as 7.5"
        if recipe.guidance == "frames":
            what = "those of the first and the last frame, such as 1,3"
        raise InputError(f"--guidance is {quoted(text)}, expected {what}, or none") from exc
    least, most = (1.0, MAX_TEXT_GUIDANCE) if recipe.guidance == "text" else (0.0, MAX_GUIDANCE)
    if not all(math.isfinite(x) and least <= x <= most for x in (first, last)):
        raise InputError(f"--guidance is {quoted(text)}, allowed: {least:g} to {most:g} each")
    return None if recipe.guidance == "text" and first == 1.0 else (first, last)


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
