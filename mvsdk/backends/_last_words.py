"""What a process said last, from the files that outlive it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mvsdk.backends.native_output import CAPTURED, clean_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOG = "log.txt"
"""The file that is standard output and standard error of the process."""
_SHOWN_LINES = 2
_SHOWN_LETTERS = 300
_READ_BYTES = 1 << 16
_SAID_ALWAYS = re.compile(r"cpuinfo_utils\.cpp|No alternate configuration present", re.IGNORECASE)
# What C++ says of an exception of Python's, and frames of a stack: how it ended, not why.
_SAYS_LITTLE = re.compile(
    r"^(?:pybind11|nanobind)::|^\[\w+\.\w+:\d+\]$"
    r"|^#?\d+:? +0x|^\[?0x[0-9a-f]+|^@ +0x|^Stack dump|^PLEASE submit",
    re.IGNORECASE,
)
_UNCAUGHT = re.compile(rb"terminate called after throwing an instance of '([^']*)'\n +what\(\): +")
_PLACE = re.compile(r"^.*?: (?=error: )")
"""Core AI names a place first, at times at great length."""


def last_words(folder: Path) -> str:
    """Return the last of what was said, as one short line; empty if there is nothing.

    Args:
        folder: Holds the log, and what was being captured when the process ended.
    """
    return shorten_last_words(said_lines(folder / LOG, folder))


def shorten_last_words(lines: Sequence[str]) -> str:
    """Return the last lines that say something, as one short line; empty if there are none."""
    lines = [line for line in lines if not _SAID_ALWAYS.search(line)]
    telling = [line for line in lines if not _SAYS_LITTLE.search(line)] or lines
    text = "; ".join(_PLACE.sub("", line) for line in telling[-_SHOWN_LINES:])
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return shown if len(shown) <= _SHOWN_LETTERS else f"...{shown[-_SHOWN_LETTERS:]}"


def said_lines(log: Path, folder: Path) -> list[str]:
    """Return the lines that were printed, those still in files of a capture last.

    Args:
        log: What was printed.
        folder: Holds what was being captured when the process ended.
    """
    paths = [log, *sorted(folder.glob(f"{CAPTURED}*"))]
    texts = (_UNCAUGHT.sub(rb"\1: ", _tail(path)) for path in paths)
    return [text for lines in texts for line in lines.splitlines() if (text := clean_line(line))]


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            return file.read(_READ_BYTES)
    except OSError:
        return b""
