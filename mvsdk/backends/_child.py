"""The process that runs the graphs of one pipeline: `python -m mvsdk.backends._child`.

It answers requests from its standard input until that ends, one at a time. What native libraries
print goes to the file that is its standard error, which the parent reads if this process dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk.backends._messages import (
    HELLO,
    listed_arrays,
    read_arrays,
    read_header,
    write_all,
    write_message,
)
from mvsdk.backends._registry import make_backend
from mvsdk.backends.native_output import keep_captured_output_in
from mvsdk.bundle import Bundle
from mvsdk.errors import BackendError, BundleError, MvsdkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, FileIO

    from numpy.typing import NDArray

    from mvsdk.backends import Backend, Session
    from mvsdk.backends._messages import Header

    Arrays = dict[str, NDArray[Any]]

logger = logging.getLogger("mvsdk.backends._child")  # this module runs as __main__

_PR_SET_PDEATHSIG = 1
_LOOK_S = 1.0
_OVERDUE_S = 30.0
"""How long after its limit a call ends the process from within, where no parent has done it."""
_MAX_TEXT = 4096


def main() -> None:
    """Serve the parent whose number is the first argument, then end the process.

    The second is the folder that holds what is printed; a third asks for the log.
    """
    _die_with(int(sys.argv[1]))
    requests, replies = _take_pipes()
    keep_captured_output_in(Path(sys.argv[2]))
    if len(sys.argv) > 3:
        logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("mvsdk").setLevel(logging.DEBUG)
    write_all(replies, HELLO)
    with _Graphs() as graphs:
        for header, arrays in _received(requests):
            _forget_output()
            faulthandler.dump_traceback_later(header["limit_s"] + _OVERDUE_S, exit=True)
            answer = graphs.answer(header, arrays)
            faulthandler.cancel_dump_traceback_later()
            write_message(replies, *answer)
    os._exit(0)  # not by way of what native libraries do at an exit: nothing of theirs is left


def _die_with(parent: int) -> None:
    """End this process when the parent ends, also by kill -9 and while a graph runs.

    Linux does it when asked, and elsewhere a thread looks now and then. Windows does not say that
    a parent has gone: there the end of the requests is the end.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    if sys.platform != "win32":
        threading.Thread(target=watch, name="mvsdk-parent", daemon=True).start()


def _take_pipes() -> tuple[BufferedReader, FileIO]:
    """Take the pipes away from descriptors 0 and 1, on which native libraries read and print."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _received(requests: BufferedReader) -> Iterator[tuple[Header, Arrays]]:
    """Yield requests as they come, until there will be no more."""
    with contextlib.suppress(EOFError):
        while True:
            header = read_header(requests)
            yield header, read_arrays(requests, header, listed_arrays(header))


def _forget_output() -> None:
    """Empty the file of what was printed: the parent wants to know what the last call said."""
    with contextlib.suppress(OSError):
        os.ftruncate(2, 0)


class _Graphs:
    """What is loaded."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._bundle: Bundle | None = None
        self._manifest = b""
        self._sessions: dict[int, Session] = {}
        self._made = 0

    def __enter__(self) -> _Graphs:
        return self

    def __exit__(self, *error: object) -> None:
        while self._sessions:
            _, session = self._sessions.popitem()
            session.close()

    def answer(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Do what a request asks for; return the reply, or the error as one."""
        try:
            match header["do"]:
                case "load":
                    return self._load(header, arrays["manifest"].tobytes()), {}
                case "run":
                    return self._run(header["session"], arrays)
                case _:
                    self._close(header["session"])
                    return {}, {}
        except MvsdkError as exc:
            text = str(exc)[:_MAX_TEXT]
            return {"error": type(exc).__name__, "text": text, "rule": exc.rule}, {}
        except Exception as exc:  # whatever a package of somebody else's raises
            logger.debug("%s failed", header["do"], exc_info=exc)
            text = f"{header['label']}: {type(exc).__name__}: {exc}"
            return {"error": BackendError.__name__, "text": text[:_MAX_TEXT]}, {}

    def _load(self, header: Header, manifest: bytes) -> Header:
        if self._backend is None:
            self._backend = make_backend(header["backend"], header["options"])
        bundle = self._open(header["bundle"], header["packs"], manifest)
        name, number = str(header["component"]), int(header["variant"])
        session = self._backend.load(bundle, bundle.manifest.components[name].variants[number])
        self._made += 1
        self._sessions[self._made] = session
        return {"session": self._made, "describe": self._backend.describe()}

    def _open(self, path: str, packs: dict[str, str], manifest: bytes) -> Bundle:
        """Open the bundle that the parent has opened, once: it remembers hashes that were right."""
        if self._bundle is None or (str(self._bundle.path), self._manifest) != (path, manifest):
            bundle = Bundle.open(path, packs=packs)
            if bundle.manifest.to_json() != manifest:
                raise BundleError(
                    f"bundle {bundle.path.name}: its manifest changed since it was opened; "
                    "open the bundle again"
                )
            self._bundle, self._manifest = bundle, manifest
        return self._bundle

    def _run(self, number: int, inputs: Arrays) -> tuple[Header, Arrays]:
        session = self._sessions[number]
        before = session.run_s
        outputs = session.run(inputs)
        return {"run_s": session.run_s - before}, outputs

    def _close(self, number: int) -> None:
        self._sessions.pop(number).close()


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        os._exit(1)
