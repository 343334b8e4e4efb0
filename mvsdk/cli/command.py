"""What a verb of the command line is.

The toolchain adds its own through the entry-point group `mvsdk.commands`: a value
`package.module:COMMANDS`, a tuple of `Command`. That module is imported to list the verbs, so it
must be light.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvsdk._text import quoted
from mvsdk.cli.output import say
from mvsdk.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One verb."""

    name: str
    help: str
    """One line, lower-case, at most 58 letters: `mvsdk --help` fits 80 columns."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit status. User errors are raised as `MvsdkError`."""


def add_variant_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options that say which variants of a bundle are meant.

    Args:
        parser: Gets the arguments.
        default: What help says of a choice that is not made.
    """
    add = parser.add_argument
    # One line for both: the help of a verb fits a screen.
    add("--target", metavar="T", help="such as onnx, or iphone (--format coreml or coreai)")
    add("--format", metavar="F", help=argparse.SUPPRESS)
    add("--chip", metavar="C", help="for this chip or phone (mvsdk devices), such as s24")
    add("--precision", metavar="P", help=f"such as fp32 or w8a16; default: {default}")


def add_program_argument(
    parser: argparse.ArgumentParser, help: str = "of a bundle of several, such as sizes"
) -> None:
    """Add the option that names a program of a bundle."""
    parser.add_argument("--program", metavar="NAME", help=help)


def add_pack_argument(
    parser: argparse.ArgumentParser, help: str = "where a part of the bundle lies, if elsewhere"
) -> None:
    """Add the option that says where parts of a bundle lie; `packs_of` reads it."""
    add = parser.add_argument
    add("--pack", metavar="N=DIR", type=_pack, action="append", default=[], help=help)


def packs_of(pairs: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    """Return the folder of each pack, by name.

    Raises:
        InputError: If one is given twice.
    """
    packs = dict(pairs)
    if len(packs) < len(pairs):
        raise InputError("--pack names a pack twice; give one folder for each")
    return packs


def _pack(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{quoted(text, 40)} is not NAME=FOLDER")
    return name, named_path(folder)


def say_chip_notes(chips: str | None) -> None:
    """Tell what is to be known of chips that were named by a phone.

    Args:
        chips: Names with commas between; None says nothing.
    """
    from mvsdk.devices import chip_note

    for name in (chips or "").split(","):
        note = chip_note(name)
        if note is not None:
            say(f"note: {note}")


def whole_number(text: str) -> int:
    """Read a whole number of at most 20 digits, the type of an argument.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not re.fullmatch(r"-?[0-9]{1,20}", text.strip()):
        raise argparse.ArgumentTypeError(f"{quoted(text, 24)} is not a whole number")
    return int(text)


def seconds(text: str) -> float:
    """Read a number of seconds, the type of an argument; its bounds are checked where it is used.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        return float(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no number of seconds") from exc


def named_path(text: str) -> Path:
    """Read the path of a file or folder, the type of an argument.

    Raises:
        argparse.ArgumentTypeError: If it is empty, as what a shell makes of a variable that is not
            set; Python would take it for the working folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; give a path, or . for this folder")
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{quoted(text)} holds a null byte, which no path has")
    return Path(text)
