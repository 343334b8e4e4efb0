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

sink_folder: Path | None = None
"""Where what is captured lies while a block runs, in files whose names begin with "native-"; None
for files without a name. If a library crashes the process, its last words are there to be read."""

_LOCK = threading.RLock()
_NATIVE = re.compile(
    rb"LIBNATIVE|\[[VIWEF]:onnxruntime|\bQnn|\bQNN|<[EWIVD]>|\bfastrpc|adsprpc"
    rb"|^\[\w+\.(?:cpp|h):\d+\] "  # ExecuTorch
    rb"|torchao/_C|torch/utils/_pytree"  # what ExecuTorch imports, of parts that it does not need
    rb"|^ODIE \[",  # Core AI
    re.IGNORECASE,
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@contextlib.contextmanager
def captured_native_output() -> Generator[list[str]]:
    """Collect what native code prints inside the block.

    File descriptors 1 and 2 and `sys.stderr` belong to the whole process, so one thread at a time
    is inside, and lines that do not look like a native library's (another thread printed) are
    passed on afterwards. Blocks may be nested.

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
        written = io.StringIO()
        try:
            with contextlib.redirect_stderr(written):
                yield lines
        finally:
            _flush()
            stack.close()
            for descriptor, sink in sinks:
                sink.seek(0)
                lines += _sort_out(sink, lambda line, to=descriptor: os.write(to, line))
                sink.close()
            lines += _sort_out(io.BytesIO(written.getvalue().encode("utf-8", "replace")), _pass_on)


@contextlib.contextmanager
def _redirected(descriptor: int) -> Generator[IO[bytes]]:
    sink = _open_sink()
    saved = os.dup(descriptor)
    try:
        os.dup2(sink.fileno(), descriptor)
        yield sink
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def _open_sink() -> IO[bytes]:
    """Open what takes the place of a descriptor; it is read and closed by others."""
    if sink_folder is None:
        return tempfile.TemporaryFile()
    return tempfile.NamedTemporaryFile(prefix="native-", dir=sink_folder)


def _sort_out(sink: IO[bytes], pass_on: Callable[[bytes], object]) -> list[str]:
    """Log the native lines of a sink and return them; hand the others on."""
    native: list[str] = []
    for line in sink:
        if _NATIVE.search(line):
            native.append(_COLOUR.sub("", line.decode("utf-8", "replace")).strip())
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
        if stream is not None and not stream.closed:  # pyright: ignore[reportUnnecessaryComparison]
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):  # no such symbol on Windows
        ctypes.CDLL(None).fflush(None)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
