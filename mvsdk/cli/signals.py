"""Signals that end a command: they clean up as Ctrl-C does. Nothing is installed by an import."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Generator
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_ONE_REQUEST_S = 2.0
"""`timeout` and service managers send a signal twice, or two in a row; the second must not cut
short what the first began."""


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end; what handles Ctrl-C handles it too."""


class Ending:
    """The signal that asked a command to end, if one did."""

    def __init__(self) -> None:
        """Begin without one."""
        self.number: int | None = None
        self._asked_s = -_ONE_REQUEST_S

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: unwind the main thread, so that every `finally` runs."""
        del frame
        again = time.monotonic() - self._asked_s < _ONE_REQUEST_S
        self._asked_s = time.monotonic()
        self.number = self.number or number
        if not again:
            raise Terminated


@contextlib.contextmanager
def ending_signals() -> Generator[Ending]:
    """Turn SIGTERM and SIGHUP into an exception of the main thread while the block runs.

    A signal that somebody else handles, or ignores as `nohup` does, stays as it is.
    """
    ending = Ending()
    taken: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, ending.ask)
                taken.append(number)
    try:
        yield ending
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
