"""The warm process: it imports what jobs import, forks a process for each, and computes nothing.

What it is asked for comes as packets of a socket: modules to import, and for a fork the file
descriptors of a job's process, which are its standard input, output and error. It answers with
process ids and, as they come, exit statuses. It has no threads of its own, and nothing that it
imports may start any that hold locks: a fork takes but the thread that forks. It ends with its
parent; what it has forked watches for that itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence

_MOST_BYTES = 1 << 16
_LOOK_S = 0.2
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD")


def main() -> int:
    """Serve until the parent is gone; return the exit status."""
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for name in _SIGNALS:
        signal.signal(getattr(signal, name), lambda *_: None)  # asked to end is the parent alone
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    from mvsdk_export.jobs import worker  # what every job's process begins with

    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    selector.register(reading, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if reading in ready:
            os.read(reading, _MOST_BYTES)
        _tell_ended(channel)
        if channel not in ready:
            continue
        try:
            content, descriptors, *_ = socket.recv_fds(channel, _MOST_BYTES, 3)
        except OSError:
            return 0
        if not content:
            return 0
        message = json.loads(content)
        with _ending_with(channel):
            _import(message["preload"])
        if not message["fork"]:
            continue
        gc.freeze()  # what is there is never collected, so it stays shared
        try:
            pid = os.fork()
        except OSError as exc:
            pid = -(exc.errno or 1)
        if pid == 0:
            _become(descriptors, [channel.detach(), reading, writing])
            selector.close()
            _end(_run(worker.main))
        for descriptor in descriptors:
            os.close(descriptor)
        if not _tell(channel, {"forked": pid}):
            return 0


def _tell(channel: socket.socket, message: object) -> bool:
    """Send a message; return whether the parent is still there."""
    try:
        channel.send(json.dumps(message).encode())
    except OSError:
        return False
    return True


def _tell_ended(channel: socket.socket) -> None:
    """Tell of every process that has ended since."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _tell(channel, {"pid": pid, "status": os.waitstatus_to_exitcode(status)})


@contextlib.contextmanager
def _ending_with(channel: socket.socket) -> Iterator[None]:
    """Look at the channel now and then while something else takes seconds; end if it is closed."""
    watched = select.poll()
    watched.register(channel, 0)  # nothing but its end

    def look(*_: object) -> None:
        if watched.poll(0):
            os._exit(0)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_S, _LOOK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _import(names: Sequence[str]) -> None:
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # the job that wants it says so better
                importlib.import_module(name)


def _become(descriptors: Sequence[int], others: Sequence[int]) -> None:
    """Make a forked process like one that was started with these descriptors."""
    signal.set_wakeup_fd(-1)
    for name in _SIGNALS:
        default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        signal.signal(getattr(signal, name), default)
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in (*descriptors, *others):
        os.close(descriptor)
    tempfile.tempdir = None


def _run(main: Callable[[], int]) -> int:
    try:
        return main()
    except SystemExit as exc:  # the parent is gone
        return exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def _end(status: int) -> None:
    """End without what an interpreter does at its end: nothing of it is left to anybody."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
