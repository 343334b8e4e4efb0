"""Keeps what native libraries print out of the program's own output.

Libraries of Qualcomm, Meta and Apple print from C, to file descriptors 1 and 2 and past
`sys.stdout`: a line about `LIBNATIVE` on standard output would break `--json`, and the reason of a
failure is on standard error only, not in the exception. ExecuTorch's goes to `sys.stderr`, which in
a notebook is no descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import re
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

logger = logging.getLogger(__name__)

_LOCK = threading.RLock()
_NATIVE = re.compile(
    rb"LIBNATIVE|\[[VIWEF]:onnxruntime|\bQnn|\bQNN|<[EWIVD]>|\bfastrpc|adsprpc"
    rb"|^\[\w+\.(?:cpp|h):\d+\] "  # ExecuTorch
    rb"|torchao/_C|torch/utils/_pytree"  # what ExecuTorch imports, of parts that it does not need
    rb"|^ODIE \[",  # Core AI
    re.IGNORECASE,
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CAPTURED = "captured-"
"""How the names of files begin that hold what is being captured; see `keep_captured_output_in`."""
_kept_in: list[Path] = []
"""The folder of these files; empty where they have no names."""


def keep_captured_output_in(folder: Path) -> None:
    """Give what is captured from now on a file with a name, until its block ends.

    Where native code ends the process inside a block, the file stays, for the parent to read
    (except on Windows, which removes it).

    Args:
        folder: Where the files lie. One for the whole process.
    """
    _kept_in[:] = [folder]


@contextlib.contextmanager
def captured_native_output(also: re.Pattern[bytes] | None = None) -> Generator[list[str]]:
    """Collect what native code prints inside the block.

    File descriptors 1 and 2 and `sys.stderr` belong to the whole process, so one thread at a time
    is inside, and lines that do not look like a native library's (another thread printed) are
    passed on afterwards. Blocks may be nested.

    Args:
        also: Lines of which library are its own too; None for those that backends use.

    Yields:
        A list that holds the captured lines once the block has ended. They go to the debug log too.
    """
    lines: list[str] = []
    with _LOCK, contextlib.ExitStack() as stack:
        _flush()
        sinks = [
            (descriptor, stack.enter_context(_redirected(descriptor)))
            for descriptor in (1, 2)
            if _is_open(descriptor)
        ]
        written = _Written(stack.enter_context(_sink()) if _kept_in else None)
        try:
            with contextlib.redirect_stderr(written):
                yield lines
        finally:
            _flush()
            stack.close()
            for descriptor, sink in sinks:
                sink.seek(0)
                lines += _sort_out(sink, lambda line, to=descriptor: os.write(to, line), also)
                sink.close()
            text = io.BytesIO(written.getvalue().encode("utf-8", "replace"))
            lines += _sort_out(text, _pass_on, also)


def clean_line(line: bytes) -> str:
    """Return a line that was printed as text without colours."""
    return _COLOUR.sub("", line.decode("utf-8", "replace")).strip()


class _Written(io.StringIO):
    """What Python code writes, and writes through to a file that outlives the process.

    It is never closed: whoever took it for standard error inside a block may write to it later.
    """

    def __init__(self, sink: IO[bytes] | None) -> None:
        super().__init__()
        self._sink = sink

    def write(self, text: str, /) -> int:
        if self._sink is not None and not self._sink.closed:
            self._sink.write(text.encode("utf-8", "replace"))
            self._sink.flush()
        return super().write(text)


def _sink() -> IO[bytes]:
    if _kept_in:
        return tempfile.NamedTemporaryFile(prefix=CAPTURED, dir=_kept_in[0])
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def _redirected(descriptor: int) -> Generator[IO[bytes]]:
    sink = _sink()  # read and closed after the descriptor is back
    saved = os.dup(descriptor)
    try:
        os.dup2(sink.fileno(), descriptor)
        yield sink
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def _sort_out(
    sink: IO[bytes], pass_on: Callable[[bytes], object], also: re.Pattern[bytes] | None
) -> list[str]:
    """Log the native lines of a sink and return them; hand the others on."""
    native: list[str] = []
    for line in sink:
        if _NATIVE.search(line) or (also and also.search(line)):
            native.append(clean_line(line))
        else:
            pass_on(line)
    for text in native:
        logger.debug("%s", text)
    return native


def _pass_on(line: bytes) -> None:
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr.write(line.decode("utf-8"))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None where a program has no console; what a server puts in its place may lack `closed`.
        if stream is not None and not getattr(stream, "closed", False):  # pyright: ignore[reportUnnecessaryComparison]
            stream.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Windows has neither
        ctypes.CDLL(None).fflush(None)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
