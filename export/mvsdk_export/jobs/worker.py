"""The process of a job: reads the job from standard input, runs it, writes its report.

`process.py` is the other side, and says what goes over which pipe. Nothing heavy is imported before
the process is sure to end with its parent.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvsdk_export.jobs.job import Job
    from mvsdk_export.jobs.progress import Items

RESULT = "result.json"
_GC_THRESHOLDS = (50_000, 20, 20)
"""Graphs are made of millions of objects that all live to the end: looking for dead ones among them
as often as Python does took a tenth of a trace."""
_LEAST_S = 0.05
"""Items that follow each other faster are not told one by one."""


def main() -> int:
    """Run the job; return the exit status."""
    payload = _read_job()
    _end_with_parent()
    gc.set_threshold(*_GC_THRESHOLDS)
    send = _open_channel()
    from mvsdk.backends.native_output import keep_captured_output_in
    from mvsdk_export.jobs.failures import describe_error
    from mvsdk_export.jobs.progress import listening

    try:
        job, made, output, scratch = pickle.loads(payload)
        keep_captured_output_in(scratch)
        os.environ.update(dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(scratch)))
        tempfile.tempdir = None
        with listening(_Told(send)):
            _run(job, made, output)
    except Exception as exc:
        with contextlib.suppress(OSError):  # the log is on the disk that may be full
            traceback.print_exc()
        send(describe_error(exc))
        return 1
    return 0


def _run(job: Job[Any], made: Any, output: Path) -> None:
    """Run a job and write its report."""
    from mvsdk_export.jobs.job import Inputs

    start, base = time.monotonic(), peak_bytes()
    result = job.run(Inputs(made), output)
    report = {
        "result": result,
        "seconds": time.monotonic() - start,
        "peak_bytes": peak_bytes(),
        "base_bytes": base,
    }
    (output / RESULT).write_text(json.dumps(report), encoding="utf-8")


def peak_bytes() -> int:
    """Return the most memory that this process held at once, in bytes; 0 where nobody counts it."""
    # Linux hands ru_maxrss on to a program from the one that starts it: of a large parent, it is
    # the parent's. VmHWM begins with the program, and of a fork with what it begins with.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("VmHWM:")).split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _read_job() -> bytes:
    """Read the job and no further: what comes after it is the parent's end."""
    return _read(int.from_bytes(_read(8), "big"))


def _read(count: int) -> bytes:
    """Read some bytes of standard input.

    Raises:
        SystemExit: If the parent went before it was done.
    """
    content = bytearray()
    while len(content) < count:
        if not (more := os.read(0, min(1 << 16, count - len(content)))):
            sys.exit(1)
        content += more
    return bytes(content)


def _open_channel() -> Callable[[object], None]:
    """Take standard output for messages, and let what is printed go to the log.

    No other program inherits the duplicate.
    """
    channel = os.dup(1)
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # last words shall not be lost in a crash
        sys.stdout.reconfigure(line_buffering=True)

    def send(message: object) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and we are about to be
            os.write(channel, json.dumps(message).encode() + b"\n")

    return send


class _Told:
    """Sends how many items are done, seldom enough to cost nothing."""

    def __init__(self, send: Callable[[object], None]) -> None:
        self._send = send
        self._next_s = 0.0

    def __call__(self, items: Items) -> None:
        """Send it, unless the last was sent just now."""
        now = time.monotonic()
        if now >= self._next_s or items.item in (0, items.items):
            self._next_s = now + _LEAST_S
            self._send({"item": items.item, "items": items.items, "unit": items.unit})


def _end_with_parent() -> None:
    """See to it that this process, and all that it starts, end when the parent ends.

    A process of its own watches for that: no thread of this one runs while a compiler holds
    Python's lock, and what compilers start would be left. It has the group that it ends to itself.
    """
    line = os.dup(0)  # what we start reads nothing from the parent, nor holds on to it
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if not hasattr(os, "fork"):  # Windows
        threading.Thread(target=_exit_with_parent, args=(line,), daemon=True).start()
        return
    if os.getpgrp() != os.getpid():  # else we would end a shell's other processes
        os.setpgid(0, 0)
    if os.fork():
        os.close(line)
        return
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(1, 3)  # the parent waits for the end of these
        _wait_for_end(line)
    finally:
        os.killpg(0, signal.SIGKILL)


def _exit_with_parent(line: int) -> None:
    _wait_for_end(line)
    os._exit(1)


def _wait_for_end(line: int) -> None:
    """Return when no process holds the other end of a pipe."""
    with contextlib.suppress(OSError):
        while os.read(line, 1 << 10):
            pass


if __name__ == "__main__":
    sys.exit(main())
