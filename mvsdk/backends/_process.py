"""A process that runs graphs, seen from the pipeline that started it."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._folders import lock_folder
from mvsdk._installed import import_path
from mvsdk._text import reason_of
from mvsdk.backends._last_words import LOG, last_words, said_lines
from mvsdk.backends._messages import (
    MessageError,
    read_arrays,
    read_header,
    skip_to_hello,
    write_message,
)
from mvsdk.errors import BackendError, MvsdkError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from mvsdk.backends._messages import Description, Header

    Arrays = dict[str, NDArray[Any]]

logger = logging.getLogger(__name__)

_MODULE = "mvsdk.backends._child"
_FOLDER = "mvsdk-runtime-"
_LEAVE_S = 3.0
"""How long a process that was asked to go, or is dying, may take."""


class ProcessLost(MvsdkError):
    """The process is no more."""

    def __init__(
        self,
        status: int | None,
        said: str,
        limit_s: float | None,
        fault: str,
        *,
        closed: bool = False,
    ) -> None:
        """Note how it ended.

        Args:
            status: As `subprocess.Popen.returncode`.
            said: The last that it printed; may be empty.
            limit_s: The limit that a call was beyond, if that is why; seconds.
            fault: What it answered, if it was ended for that; may be empty.
            closed: Whether our side closed it while it had a call under way.
        """
        super().__init__(f"status {status}")
        self.status, self.said, self.limit_s, self.fault = status, said, limit_s, fault
        self.closed = closed


class RuntimeProcess:
    """One child process. It ends with this object, and with the process that made it."""

    def __init__(self) -> None:
        """Start it; nothing is loaded yet.

        Raises:
            BackendError: If the system refuses.
        """
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._greeted = False
        self._late_s: float | None = None
        self._closed = False
        try:
            self._scratch = _Scratch()
            try:
                self._child = _start(self._scratch.path)
            except BaseException:
                self._scratch.remove()
                raise
        except (OSError, RuntimeError) as exc:  # RuntimeError: no more threads
            reason = reason_of(exc)
            raise BackendError(
                f"no process can be started to run graphs in: {reason}; free what is short"
            ) from exc
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._requests = self._child.stdin
        pipe: Any = self._child.stdout
        self._replies = io.BufferedReader(pipe)
        self._end = weakref.finalize(self, _end, self._child, self._scratch, self._owner)

    @property
    def is_alive(self) -> bool:
        """Whether calls can be made: it runs, and belongs to us and not to who forked us."""
        mine = self._owner == os.getpid()
        return mine and self._end.alive and self._child.poll() is None

    def call(
        self,
        request: Header,
        arrays: Mapping[str, NDArray[Any]] | None = None,
        *,
        limit_s: float,
        due: Iterable[Description] = (),
    ) -> tuple[Header, Arrays]:
        """Send a request and wait for its reply. Whatever interrupts that ends the process.

        Args:
            request: JSON values.
            arrays: Arrays that go with it.
            limit_s: How long all of it may take.
            due: Arrays that have to come back, unless an error does.

        Returns:
            The reply, which may be an error, and its arrays.

        Raises:
            ProcessLost: If the process has ended, or ends.
        """
        with self._lock:
            if not self.is_alive:
                raise self._lost("")
            try:
                with self._ended_after(limit_s):
                    write_message(self._requests, {**request, "limit_s": limit_s}, arrays)
                    return self._receive(due)
            except MessageError as exc:
                self._kill()
                raise self._lost(str(exc)) from exc
            except (OSError, EOFError, ValueError) as exc:  # ValueError: closed by another thread
                raise self._lost("") from exc
            except BaseException:
                self._end()
                raise

    def close(self) -> None:
        """Let the process give everything back and go; a second call does nothing.

        A call that another thread has under way is ended.
        """
        self._closed = True
        if self._owner == os.getpid() and self._lock.acquire(blocking=False):
            try:
                self._requests.close()
                self._child.wait(_LEAVE_S)
            except (OSError, subprocess.TimeoutExpired):
                pass
            finally:
                self._lock.release()
                self._end()
        else:
            self._end()

    def _receive(self, due: Iterable[Description]) -> tuple[Header, Arrays]:
        if not self._greeted:
            skip_to_hello(self._replies)
            self._greeted = True
        reply = read_header(self._replies)
        found = {} if "error" in reply else read_arrays(self._replies, reply, due)
        if logger.isEnabledFor(logging.DEBUG):
            for line in said_lines(self._scratch.path / LOG, self._scratch.path):
                logger.debug("%s", line)
        return reply, found

    @contextlib.contextmanager
    def _ended_after(self, limit_s: float) -> Generator[None]:
        """End the process if the block takes longer: what waits for it then hears of its end."""

        def late() -> None:
            self._late_s = limit_s
            self._kill()

        timer = threading.Timer(limit_s, late)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as exc:  # no more threads
            raise BackendError(f"no graph can be timed: {exc}; free what is short") from exc
        try:
            yield
        finally:
            timer.cancel()

    def _kill(self) -> None:
        _kill(self._child)

    def _lost(self, fault: str) -> ProcessLost:
        """Wait for the end, let go of everything, and say how it was."""
        try:
            self._child.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._kill()
        said = last_words(self._scratch.path)
        self._end()
        return ProcessLost(self._child.returncode, said, self._late_s, fault, closed=self._closed)


class _Scratch:
    """The folder of a process: what it prints, and what its libraries keep for a while.

    It goes with the process, however that ends. One whose owner was killed is removed by the next
    process of the same user.
    """

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        for left in root.glob(f"{_FOLDER}*"):
            _remove_abandoned(left)
        self.path, self._lock = _make_locked()

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.let_go()

    def let_go(self) -> None:
        """Leave it to whoever else holds it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _make_locked() -> tuple[Path, int | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_FOLDER))
        # Between the two, another process may take it for abandoned.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            lock = lock_folder(path)
            if lock is None or path.exists():
                return path, lock
            os.close(lock)


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError, AttributeError):  # held, not ours, or no such on Windows
        if path.lstat().st_uid != os.getuid():
            return
        lock = lock_folder(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _start(scratch: Path) -> subprocess.Popen[bytes]:
    # -P: nothing in the current folder is code of ours; -u: what it says is known if it dies.
    command = [sys.executable, "-u", "-P", "-m", _MODULE, str(os.getpid()), str(scratch)]
    command += ["--log"] if logger.isEnabledFor(logging.DEBUG) else []
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    with (scratch / LOG).open("ab") as log:  # appended to, so that the child can empty it
        return _spawn(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is ours to handle
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
            env={
                **os.environ,
                **places,
                "PYTHONPATH": os.pathsep.join(import_path()),
            },
        )


def _spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process from a thread that lives as long as this one does.

    Linux ends a process that asks to end with its parent (`_child`) when the parent's *thread*
    ends: a server's worker that is no longer needed would take pipelines of others along.
    """
    future: Future[subprocess.Popen[bytes]] = Future()
    _orders().put((future, functools.partial(subprocess.Popen, command, **options)))
    try:
        return future.result()
    except BaseException:  # Ctrl-C: it may start all the same
        future.add_done_callback(_end_started)
        raise


def _end_started(future: Future[subprocess.Popen[bytes]]) -> None:
    if future.exception() is None:
        child = future.result()
        _kill(child)
        child.wait()
        _close_pipes(child)


@functools.cache
def _orders() -> queue.SimpleQueue[tuple[Future[Any], Any]]:
    """Return where to order a process from the thread that starts all of them."""
    orders: queue.SimpleQueue[tuple[Future[Any], Any]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            future, start = orders.get()
            try:
                future.set_result(start())
            except BaseException as exc:  # whoever ordered it is to hear of it
                future.set_exception(exc)
            del future, start

    threading.Thread(target=serve, name="mvsdk-processes", daemon=True).start()
    return orders


if hasattr(os, "register_at_fork"):  # a fork has a copy of the queue, and nobody who serves it
    os.register_at_fork(after_in_child=_orders.cache_clear)


def _end(child: subprocess.Popen[bytes], scratch: _Scratch, owner: int) -> None:
    """End a process and remove its folder, unless they are those of who forked us."""
    if owner != os.getpid():
        child.returncode = 0  # not ours to wait for
        scratch.let_go()
        _close_pipes(child)
        return
    _kill(child)
    with contextlib.suppress(subprocess.TimeoutExpired):  # the system does not let it go yet
        child.wait(_LEAVE_S)
    _close_pipes(child)
    scratch.remove()


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started, unless it has been waited for."""
    if child.returncode is not None:
        return
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
