"""Output of the command line: results go to standard output, talk to standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence

from mvsdk._text import reason_of
from mvsdk.errors import OutputError


def show(text: str) -> None:
    """Print a result.

    Raises:
        BrokenPipeError: If the reader went away.
        OutputError: If standard output cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as exc:
        abandon_stdout()
        reason = reason_of(exc)
        raise OutputError(
            f"cannot write standard output: {reason}; send it to another place"
        ) from exc


def abandon_stdout() -> None:
    """Point standard output at nothing, so that Python does not complain while it exits."""
    with contextlib.suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def show_json(value: object) -> None:
    """Print a result for programs: one JSON document, in ASCII, which every locale can print."""
    show(json.dumps(value, indent=2))


def say(text: str) -> None:
    """Tell the user something that is no result."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """One line on a terminal that is written over; nothing where standard error is no terminal."""

    def __init__(self) -> None:
        """Look at standard error once."""
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._width = 0

    def update(self, text: str) -> None:
        """Replace the line."""
        if self._live:
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)

    def clear(self) -> None:
        """Remove the line."""
        if self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in plain text: two spaces between columns, numbers to the right.

    Args:
        headings: One per column.
        rows: Cells, as many as headings in each row.
    """
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    right = [
        bool(rows) and all(_is_number(row[column]) for row in rows)
        for column in range(len(headings))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def format_bytes(count: int) -> str:
    """Return a size for people, in powers of 1024."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def format_seconds(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit() or (cell[:1] == "-" and cell[1:2].isdigit())
