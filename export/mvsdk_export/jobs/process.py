"""The process that a job runs in: started, listened to, and ended with all that it started.

Both sides hold the ends of two pipes. Over its standard input the process gets its job, and sees by
the end of it that its parent is gone, however it went. Over what begins as its standard output it
sends lines of JSON: how many items are done, and the error that ended it. What libraries print goes
to the log instead; so neither can be taken for the other, and an error needs no room on a disk.

On Linux processes are forked from a warm one (warm.py), which has imported what jobs import: most
of a short job's time is imports otherwise, and the end of an interpreter. Elsewhere each is started
anew; forks of macOS have no use of Apple's frameworks, and Windows has no forks.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mvsdk._installed import import_path
from mvsdk._text import reason_of
from mvsdk_export.errors import ExportError
from mvsdk_export.jobs.progress import Items

CAN_FORK = sys.platform == "linux"
_MOST_LINE_BYTES = 1 << 16
_MOST_MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """The error that ended a process, in its own words."""

    kind: str
    """Name of its class."""
    text: str
    number: int | None
    """`errno` of the `OSError` at the bottom of it; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a process ended."""

    status: int
    """Exit status; negative for the signal that ended it."""
    error: JobError | None


@dataclass(frozen=True, slots=True)
class News:
    """What a process told: how many items are done, or that it will tell no more."""

    process: Process
    items: Items | None


class Process(ABC):
    """A process that runs a job. What it tells goes to a queue, read in a thread of its own."""

    def __init__(self, pid: int, channel: IO[bytes], lifeline: int) -> None:
        """Follow a process.

        Args:
            pid: Its id, and that of the group of all that it starts.
            channel: What it tells; closed at the end.
            lifeline: File descriptor of the pipe that it reads; closed at the end.
        """
        self.pid = pid
        self.error: JobError | None = None
        self._channel, self._lifeline = channel, lifeline
        self._reader: threading.Thread | None = None

    def send(self, payload: bytes) -> None:
        """Write the job; the pipe stays open as long as this process wants that one to live."""
        content = len(payload).to_bytes(8, "big") + payload
        with contextlib.suppress(BrokenPipeError):  # it died at once: its status says why
            while content:
                content = content[os.write(self._lifeline, content) :]

    def listen(self, news: queue.SimpleQueue[News]) -> None:
        """Begin to put what the process tells into a queue.

        Raises:
            ExportError: If the system makes no thread.
        """
        self._reader = threading.Thread(target=self._read, args=(news,), daemon=True)
        try:
            self._reader.start()
        except RuntimeError as exc:  # no more threads
            raise ExportError(f"no process can be followed: {exc}; end other programs") from exc

    @abstractmethod
    def poll(self) -> int | None:
        """Return its exit status; None if it has not ended."""

    @abstractmethod
    def wait(self) -> int:
        """Wait for its end; return its exit status."""

    def end(self) -> Ending:
        """End it, if it has not ended, and what it has left behind."""
        status = self.poll()
        self._kill()
        # Before its end: if it has no group yet, this is what ends it.
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        ended = self.wait()
        if self._reader is not None and self._reader.ident is not None:
            self._reader.join(timeout=5)
        return Ending(status=ended if status is None else status, error=self.error)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: zombies are left
            if hasattr(os, "killpg"):
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM)

    def _read(self, news: queue.SimpleQueue[News]) -> None:
        with contextlib.suppress(OSError, ValueError), self._channel:
            while line := self._channel.readline(_MOST_LINE_BYTES):
                message = _parse(line)
                if isinstance(message, JobError):
                    self.error = message
                elif message is not None:
                    news.put(News(self, message))
        news.put(News(self, None))


class Launcher:
    """Starts processes for jobs; the warm one, where there is one, is started with the first."""

    def __init__(self, *, warm: bool = CAN_FORK) -> None:
        """Start nothing yet.

        Args:
            warm: Fork processes from one that has imported what jobs need.
        """
        self._is_warm = warm
        self._source: _WarmSource | None = None

    def start(
        self, job: object, *, name: str, preload: Sequence[str], log: IO[bytes], scratch: Path
    ) -> Process:
        """Start a process and give it its job.

        Args:
            job: What `worker.py` takes.
            name: What people call the job.
            preload: Modules that it shall find imported.
            log: File for what is printed.
            scratch: Folder for temporary files of whatever runs in there.

        Raises:
            ExportError: If the system makes no process.
        """
        try:
            process = self._fork(preload, log) if self._is_warm else _spawn(log, scratch)
        except (OSError, _EndedError) as exc:
            reason = reason_of(exc) if isinstance(exc, OSError) else str(exc)
            raise ExportError(
                f"no process can be started for {name}: {reason}; end other programs, or raise "
                "the limits of memory and processes"
            ) from exc
        # Not pickles of strangers: a pipe of our own, between processes of our own.
        process.send(pickle.dumps(job))
        return process

    def warm_up(self, modules: Sequence[str]) -> None:
        """Have the warm process import what jobs will need, while this one does something else.

        Args:
            modules: Their names.
        """
        if not self._is_warm or self._source is not None:
            return
        with contextlib.suppress(OSError):  # the first job says so better
            self._source = _WarmSource()
            self._source.import_modules(modules)

    def close(self) -> None:
        """End the warm process."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _fork(self, preload: Sequence[str], log: IO[bytes]) -> Process:
        if self._source is not None and self._source.ended:
            self.close()
        if self._source is None:
            self._source = _WarmSource()
        return self._source.fork(preload, log)


def _spawn(log: IO[bytes], scratch: Path) -> Process:
    # -P: nothing in the current folder is code of ours.
    command = [sys.executable, "-P", "-m", "mvsdk_export.jobs.worker"]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        env={**_environment(), **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(scratch))},
    )
    return _Spawned(child)


class _Spawned(Process):
    """A process that was started anew."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        lifeline = os.dup(child.stdin.fileno())
        child.stdin.close()
        super().__init__(child.pid, child.stdout, lifeline)
        self._child = child

    def poll(self) -> int | None:
        return self._child.poll()

    def wait(self) -> int:
        return self._child.wait()


class _Forked(Process):
    """A process that was forked from the warm one, which tells how it ends."""

    def __init__(self, pid: int, channel: IO[bytes], lifeline: int) -> None:
        super().__init__(pid, channel, lifeline)
        self._status: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        return self._status

    def wait(self) -> int:
        self._ended.wait()
        assert self._status is not None
        return self._status

    def set_status(self, status: int) -> None:
        """Note how it ended."""
        if self._status is None:
            self._status = status
        self._ended.set()


class _EndedError(Exception):
    """The warm process has ended; the message says how."""


class _WarmSource:
    """The warm process, from this side."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        command = [sys.executable, "-P", "-m", "mvsdk_export.jobs.warm"]
        try:
            with theirs:
                self._child = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,
                    env=_environment(),
                )
        except OSError:
            ours.close()
            self._log.close()
            raise
        self.ended = False
        self._socket = ours
        self._replies: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: dict[int, _Forked] = {}
        self._statuses: dict[int, int] = {}
        """Of processes that ended before their ids were known here."""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def import_modules(self, names: Sequence[str]) -> None:
        """Have modules imported, and wait for nothing.

        Raises:
            OSError: If the warm process has ended.
        """
        self._socket.send(json.dumps({"preload": list(names), "fork": False}).encode())

    def fork(self, preload: Sequence[str], log: IO[bytes]) -> Process:
        """Have a process forked.

        Raises:
            OSError: If the system makes none.
            _EndedError: If the warm process has ended.
        """
        reading, lifeline = os.pipe()
        try:
            channel, writing = os.pipe()
        except OSError:
            os.close(reading)
            os.close(lifeline)
            raise
        message = json.dumps({"preload": list(preload), "fork": True}).encode()
        try:
            socket.send_fds(self._socket, [message], [reading, writing, log.fileno()])
            pid = self._replies.get()
            self._check(pid)
        except BaseException as exc:
            os.close(lifeline)
            os.close(channel)
            if isinstance(exc, ConnectionError):
                raise _EndedError(self._last_words()) from exc
            raise
        finally:
            os.close(reading)
            os.close(writing)
        process = _Forked(pid, os.fdopen(channel, "rb"), lifeline)
        with self._lock:
            self._running[pid] = process
            early = self._statuses.pop(pid, None)
        if early is not None:
            process.set_status(early)
        elif self.ended:
            process.set_status(self._status())
        return process

    def close(self) -> None:
        """End it; what it has forked ends by itself, with its lifeline."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()
        self._listener.join(timeout=5)
        self._socket.close()
        self._log.close()

    def _check(self, pid: int) -> None:
        """Refuse the number of an error in place of a process id; 0 for a source that has ended."""
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        if pid == 0:
            raise _EndedError(self._last_words())

    def _listen(self) -> None:
        """Read what the warm process tells, to its end."""
        with contextlib.suppress(OSError):
            while content := self._socket.recv(_MOST_MESSAGE_BYTES):
                message = json.loads(content)
                if "forked" in message:
                    self._replies.put(message["forked"])
                    continue
                pid, status = message["pid"], message["status"]
                with self._lock:
                    process = self._running.pop(pid, None)
                    if process is None:
                        self._statuses[pid] = status
                if process is not None:
                    process.set_status(status)
        self.ended = True
        self._replies.put(0)
        with self._lock:
            left = list(self._running.values())
            self._running.clear()
        for process in left:
            process.set_status(self._status())

    def _status(self) -> int:
        """Return how the warm process ended: what it has forked is ended for the same reason."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(timeout=5) or 1
        return 1

    def _last_words(self) -> str:
        status = self._status()
        self._log.seek(0)
        lines = self._log.read()[-2000:].decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        how = f"ended by {name_signal(-status)}" if status < 0 else f"has exit status {status}"
        return f"the process that starts them {how}{': ' * bool(said)}{said}"


def name_signal(number: int) -> str:
    """Return the name of a signal, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _environment() -> dict[str, str]:
    # Jobs run side by side. OpenMP's threads would spin while they wait for each other, on the
    # processors that those of another job need: a job of 1 s took 21 s so.
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(import_path()),
    }


def _parse(line: bytes) -> Items | JobError | None:
    """Return the message of a line; None if it is none of ours."""
    try:
        found: Any = json.loads(line)
        if "items" in found:
            return Items(item=found["item"], items=found["items"], unit=found["unit"])
        return JobError(kind=found["kind"], text=found["text"], number=found["number"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
