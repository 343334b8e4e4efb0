"""The process that a stage runs in: started, listened to, and ended with all that it started.

Both sides hold the ends of two pipes. Over its standard input the child gets one job, and sees by
the end of it that its parent is gone, however it went. Over what begins as its standard output it
sends lines of JSON: how many items are done, and the error that ended it. What libraries print goes
to the log instead; so neither can be taken for the other, and an error needs no room on a disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal

from mvsdk._installed import import_path
from mvsdk._text import reason_of
from mvsdk_export.errors import ExportError
from mvsdk_export.jobs.interrupts import undisturbed
from mvsdk_export.jobs.progress import Items

ALIVE_S = 1.0
"""A listener hears this often that the child is alive."""
_MOST_LINE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildError:
    """The error that ended a child, in its own words."""

    kind: str
    """Name of its class."""
    text: str
    number: int | None
    """`errno` of the `OSError` at the bottom of it; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a child ended."""

    status: int
    """Exit status; negative for the signal that ended it."""
    error: ChildError | None


OnItems = Callable[[Items | None], None]
"""Told how many items are done, and None about every second that brings no news."""


def run_child(job: Mapping[str, Any], log: IO[bytes], *, on_items: OnItems | None = None) -> Ending:
    """Run a job in a child process and wait for its end.

    The child is ended with this call, whatever ends it, and so is whatever the child has started.

    Args:
        job: What `worker.py` takes: `function`, `arguments`, and the folders `output` and
            `scratch`, the last for temporary files of whatever runs in there.
        log: File for what is printed.
        on_items: Progress; it may raise, which ends the child.

    Raises:
        ExportError: If the system makes no process.
    """
    # -P: nothing in the current folder is code of ours.
    command = [sys.executable, "-P", "-m", "mvsdk_export.jobs.worker"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(import_path()),
        **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), job["scratch"]),
    }
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
    except OSError as exc:
        reason = reason_of(exc)
        raise ExportError(
            f"no process can be started for {job['function']}: {reason}; end other programs, or "
            "raise the limits of memory and processes"
        ) from exc
    try:
        reader = _Reader(child)
    except RuntimeError as exc:  # no more threads
        _end(child)
        raise ExportError(f"no process can be followed: {exc}; end other programs") from exc
    try:
        _send(child, job)
        for items in reader.news():
            if on_items is not None:
                on_items(items)
        child.wait()
    finally:
        with undisturbed():
            _end(child)
            reader.close()
    return Ending(status=child.returncode, error=reader.error)


class _Reader:
    """Reads what a child sends, in a thread: Windows cannot wait for a pipe in any other way."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.error: ChildError | None = None
        self._child = child
        self._messages: queue.SimpleQueue[Items | Literal["end"]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def news(self) -> Iterator[Items | None]:
        """Yield how many items are done, None where a while brought no news, until the end."""
        while True:
            found: Items | Literal["end"] | None = None
            try:
                found = self._messages.get(timeout=ALIVE_S)
            except queue.Empty:
                # A process that the child has started may hold the pipe open.
                if self._child.poll() is not None:
                    return
            if found == "end":
                return
            yield found

    def close(self) -> None:
        """Read what is left, once the child and all that it started have ended."""
        self._thread.join(timeout=5)

    def _read(self) -> None:
        pipe = self._child.stdout
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while line := pipe.readline(_MOST_LINE_BYTES):
                message = _parse(line)
                if isinstance(message, ChildError):
                    self.error = message
                elif message is not None:
                    self._messages.put(message)
            pipe.close()
        self._messages.put("end")


def _parse(line: bytes) -> Items | ChildError | None:
    """Return the message of a line; None if it is none of ours."""
    try:
        found = json.loads(line)
        if "items" in found:
            return Items(item=found["item"], items=found["items"], unit=found["unit"])
        return ChildError(kind=found["kind"], text=found["text"], number=found["number"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _send(child: subprocess.Popen[bytes], job: Mapping[str, Any]) -> None:
    """Write the job; the pipe stays open as long as this process wants the child to live."""
    pipe: IO[bytes] | None = child.stdin
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once: its status says why
        pipe.write(json.dumps(job).encode() + b"\n")
        pipe.flush()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child, if it has not ended, and what it has left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
