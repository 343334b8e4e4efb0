"""Signals that ask a process to end, while it clears up: Ctrl-C twice is what people press."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

_Handler = Callable[[int, FrameType | None], Any]


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """Let the first signal interrupt the block, and pass over those that follow.

    Between the first and the end of the block lies what clears up.
    """
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            return
        try:
            kept[number](number, frame)
        except BaseException:
            interrupted = True
            raise

    kept = _handlers()
    with _handled(kept, handle):
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let a block that clears up end before a signal interrupts what comes after it."""
    came: list[int] = []
    with _handled(_handlers(), lambda number, _: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


def _handlers() -> dict[int, _Handler]:
    """Return what handles these signals in Python; nothing in threads, which none interrupts."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if callable(handler)}


@contextlib.contextmanager
def _handled(kept: dict[int, _Handler], handler: _Handler) -> Iterator[None]:
    try:
        for number in kept:
            signal.signal(number, handler)
        yield
    finally:
        for number, earlier in kept.items():
            signal.signal(number, earlier)
