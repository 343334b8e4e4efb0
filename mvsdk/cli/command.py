"""What a verb of the command line is.

The toolchain adds its own through the entry-point group `mvsdk.commands`: a value
`package.module:COMMANDS`, a tuple of `Command`. That module is imported to list the verbs, so it
must be light.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mvsdk._text import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One verb."""

    name: str
    help: str
    """One line, lower-case, at most 58 letters: `mvsdk --help` fits 80 columns."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit status. User errors are raised as `MvsdkError`."""


def whole_number(text: str) -> int:
    """Read a whole number of at most 20 digits, the type of an argument.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not re.fullmatch(r"-?[0-9]{1,20}", text.strip()):
        raise argparse.ArgumentTypeError(f"{quoted(text, 24)} is not a whole number")
    return int(text)


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
