"""Arguments that several verbs of the toolchain share, and how they are read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import cast

from mvsdk.cli.command import whole_number
from mvsdk.devices import CHIPSETS, DEFAULT_CHIPSETS, find_chipset
from mvsdk.errors import InputError
from mvsdk.manifest import PRECISIONS, Precision


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --frames, --height, --width and --steps."""
    parser.add_argument("--frames", metavar="N", type=whole_number, help="frames of a clip")
    parser.add_argument("--height", metavar="N", type=whole_number, help="pixels")
    parser.add_argument("--width", metavar="N", type=whole_number, help="pixels")
    parser.add_argument("--steps", metavar="N,...", help="step counts, such as 1,2,4")


def read_steps(text: str) -> tuple[int, ...]:
    """Read step counts.

    Raises:
        InputError: If they are not whole numbers with commas between.
    """
    try:
        return tuple(dict.fromkeys(whole_number(word) for word in text.split(",")))
    except argparse.ArgumentTypeError as exc:
        raise InputError(
            f"--steps is {text[:64]!a}, want step counts with commas between, such as 1,2,4"
        ) from exc


def read_precisions(text: str, known: Sequence[Precision] = PRECISIONS) -> tuple[Precision, ...]:
    """Read precisions; "all" means every known one.

    Raises:
        InputError: If one is not known.
    """
    words = list(known) if text == "all" else text.split(",")
    for word in words:
        if word not in known:
            raise InputError(f"unknown precision {word[:64]!a}; known: {', '.join(known)}, all")
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
