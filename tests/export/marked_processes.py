"""Processes that are started with a mark, which all that they start inherits (Linux)."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from pathlib import Path

import pytest

MARK = "MVSDK_TEST_MARK"
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds processes as Linux lets it"
)


class Marked:
    """A mark, and the processes that bear it."""

    def __init__(self) -> None:
        self._value = secrets.token_hex(8)
        self.environment = {**os.environ, MARK: self._value}
        """For the first process."""

    def alive(self) -> list[int]:
        """Return the ids of all that were started, and have not ended."""
        mark, found = f"{MARK}={self._value}".encode(), []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes():
                    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                    found += [int(folder.name)] if state not in "ZX" else []
        return found

    def survivors(self, seconds: float = 2.0) -> list[int]:
        """Wait for all to end; return those that have not."""
        deadline = time.monotonic() + seconds
        while (found := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def kill(self) -> None:
        """End all that are left."""
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
