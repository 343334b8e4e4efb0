"""Progress on standard error: a bar on a terminal, lines where output is kept, as in CI logs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from mvsdk.cache import cache_folder
from mvsdk.cli.output import say
from mvsdk_export.jobs.history import FILE, History
from mvsdk_export.jobs.progress import Progress

REDRAW_S = 0.5
"""A bar is drawn this often, whether anything is told or not."""
LINE_S = 30.0
"""Where lines are written, a stage that goes on gets one this often."""
_BAR_FORMAT = "{desc} |{bar:10}| {elapsed}{postfix}"


class Display(Protocol):
    """What shows progress."""

    @property
    def last(self) -> Progress | None:
        """What was told last."""
        ...

    def show(self, progress: Progress) -> None:
        """Show where an export or a verification is."""
        ...


@contextlib.contextmanager
def shown_progress() -> Iterator[Display]:
    """Show progress while the block runs, also while nothing is told."""
    live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    display = _Bar() if live else _Lines()
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(REDRAW_S):
            display.tick()

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield display
    finally:
        ended.set()
        ticker.join()
        display.close()


def read_history() -> History:
    """Return what stages took in earlier runs, as the cache folder keeps it."""
    return History(cache_folder() / FILE)


class _Bar:
    """One line that is written over."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self.last: Progress | None = None
        self._told_s = 0.0
        self._bar: Any = tqdm(
            total=1.0,
            file=sys.stderr,
            leave=False,
            ncols=_columns(),
            bar_format=_BAR_FORMAT,
            desc="starting",
        )

    def show(self, progress: Progress) -> None:
        """Move the bar, never backwards: a stage may count several things one after the other."""
        self.last, self._told_s = progress, time.monotonic()
        self._bar.n = max(self._bar.n, progress.fraction)
        self._bar.set_description_str(f"{progress.index + 1:>2}/{progress.count}", refresh=False)
        self.tick()

    def tick(self) -> None:
        """Draw the line as it is by now."""
        if self.last is not None:
            estimate = _estimate(self.last, time.monotonic() - self._told_s)
            said = (estimate, self.last.stage, _items(self.last))
            self._bar.set_postfix_str(", ".join(filter(None, said)), refresh=False)
        self._bar.ncols = _columns()  # a window may have become another
        self._bar.refresh()

    def close(self) -> None:
        """Leave an empty line behind."""
        self._bar.close()


class _Lines:
    """A line for each stage as it ends, and now and then one for a stage that takes long."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        self._told_s = self._said_s = time.monotonic()
        self._lock = threading.Lock()

    def show(self, progress: Progress) -> None:
        """Say that a stage has ended."""
        with self._lock:
            begins = self.last is None or self.last.index != progress.index
            self.last, self._told_s = progress, time.monotonic()
            if begins or progress.state != "running":
                self._said_s = self._told_s
        if progress.state != "running":
            found = progress.state == "found"
            took = "found finished" if found else f"{progress.elapsed_s:.1f} s"
            say(f"{_place(progress)}: {took}")

    def tick(self) -> None:
        """Say that a stage goes on, if nothing was said for long."""
        with self._lock:
            now = time.monotonic()
            if self.last is None or self.last.state != "running" or now - self._said_s < LINE_S:
                return
            self._said_s, passed_s = now, now - self._told_s
            progress = self.last
        goes_on = f"goes on, {progress.elapsed_s + passed_s:.0f} s"
        said = (goes_on, _items(progress), _estimate(progress, passed_s))
        with contextlib.suppress(OSError):  # who writes a result learns of it
            say(f"{_place(progress)}: {', '.join(filter(None, said))}")

    def close(self) -> None:
        """Leave everything as it was said."""


def _columns() -> int:
    """Return the columns of the terminal; 80 where it tells none, for which tqdm draws nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def describe_place(progress: Progress) -> str:
    """Return where an export is, in words."""
    where = "in" if progress.state == "running" else "after"
    return f"{where} stage {progress.index + 1} of {progress.count}, {progress.stage}"


def about(seconds: float) -> str:
    """Return an estimate of time for people, in whole minutes where it is long."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def _place(progress: Progress) -> str:
    return f"[{progress.index + 1}/{progress.count}] {progress.stage}"


def _items(progress: Progress) -> str:
    if not progress.items or progress.state != "running":
        return ""
    return f"{progress.item} of {progress.items} {progress.unit}"


def _estimate(progress: Progress, passed_s: float) -> str:
    """Return what is left by what earlier runs took, "" if that is not known, or has run out.

    Args:
        progress: What was told last.
        passed_s: How long ago.
    """
    if progress.state == "running":
        if progress.remaining_s is not None and progress.remaining_s > passed_s + 1:
            return f"{about(progress.remaining_s - passed_s)} left"
        stage_s = progress.stage_remaining_s
        if progress.remaining_s is None and stage_s is not None and stage_s > passed_s + 1:
            return f"{about(stage_s - passed_s)} left of this stage"
    return ""
