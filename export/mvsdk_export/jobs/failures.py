"""Why a stage failed, in one line: what its process said, how it ended, or a disk that is full."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import mvsdk.errors
import mvsdk_export.errors
from mvsdk._staging import NO_SPACE, NOT_ALLOWED
from mvsdk._text import quoted, reason_of
from mvsdk.backends._last_words import said_lines, shorten_last_words
from mvsdk.errors import MvsdkError, OutputError
from mvsdk_export.errors import ExportError, first_line
from mvsdk_export.jobs.process import Ending, name_signal

_NO_PLACES = (errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG)
_LARGER = "set MVSDK_CACHE to a folder on a larger disk"
_REFUSALS = {
    errno.ENOSPC: ("no space left in", _LARGER),
    errno.EDQUOT: ("disk quota exceeded in", _LARGER),
    errno.EFBIG: (
        "a file became too large in",
        "set MVSDK_CACHE to a folder on a disk that takes larger files, or raise ulimit -f",
    ),
}
_TOLD = {
    errno.ENOSPC: re.compile(r"no space left on device", re.IGNORECASE),
    errno.EDQUOT: re.compile(r"disk quota exceeded", re.IGNORECASE),
    errno.EFBIG: re.compile(r"file too large", re.IGNORECASE),
}
"""What libraries make of these numbers, where they raise errors of their own."""
_MEMORY = "if memory was short, export one --chip at a time"
_PROBE_BYTES = 1 << 20
_MOST_LETTERS = 2000
_KEPT_LINES = 40


def describe_error(exc: BaseException) -> dict[str, object]:
    """Return what a child sends of the error that ended it, as JSON values."""
    text = " ".join(str(exc).split()) if isinstance(exc, MvsdkError) else ""
    if not isinstance(exc, MvsdkError):
        said = first_line(exc) if str(exc).strip() else ""
        text = f"{type(exc).__name__}: {said}".rstrip(": ")
        if isinstance(exc, MemoryError):
            text = f"{text}; {_MEMORY}"
    return {
        "kind": type(exc).__name__,
        "text": text[:_MOST_LETTERS],
        "number": next((n for x in _chain(exc) if (n := _number(x)) is not None), None),
    }


def failure_of(name: str, ending: Ending, log: Path, scratch: Path, cache: Path) -> MvsdkError:
    """Return the error of a stage whose child did not come to a good end.

    Args:
        name: What people call the stage.
        ending: How the child ended.
        log: What it printed.
        scratch: Its folder for temporary files.
        cache: Where stages are kept, whose disk may be full.
    """
    lines = said_lines(log, scratch)[-_KEPT_LINES:]
    failure = _refusal(name, ending, lines, scratch, cache) or _own(name, ending, lines)
    if lines:
        failure.add_note("\n".join(["the end of the stage's log:", *lines]))  # for --debug
    return failure


@contextlib.contextmanager
def keeping(name: str, cache: Path) -> Iterator[None]:
    """Say what to do where the system does not let us write the folder of a stage.

    Args:
        name: What people call the stage.
        cache: Where stages are kept.

    Raises:
        OutputError: For every `OSError` of the block, also where another error hides it.
    """
    try:
        yield
    except (OutputError, OSError) as exc:
        found = next((x for x in _chain(exc) if isinstance(x, OSError)), None)
        if found is None:
            raise
        if (number := _number(found)) is not None:
            raise _cannot_keep(name, number, cache) from exc
        reason = reason_of(found)
        which = "on another disk"
        if found.errno in NOT_ALLOWED:
            which = "that you may write to"
        elif found.errno in _NO_PLACES:
            which = "that can be made"
        raise OutputError(
            f"{name} cannot be kept in {quoted(cache)}: {reason}; set MVSDK_CACHE to a folder "
            f"{which}"
        ) from exc


def _refusal(
    name: str, ending: Ending, lines: list[str], scratch: Path, cache: Path
) -> OutputError | None:
    """Return the error of a full disk, also where what was running did not say so."""
    number = ending.error.number if ending.error else None
    if number is None and not _can_write(scratch):
        number = errno.ENOSPC
    if number is None and ending.error is None:  # a library that ended the process itself
        number = next((n for x in lines[-5:] if (n := _told(x)) is not None), None)
    return None if number is None else _cannot_keep(name, number, cache)


def _own(name: str, ending: Ending, lines: list[str]) -> MvsdkError:
    last = shorten_last_words(lines)
    if ending.error is not None:
        return _kind_of(ending.error.kind)(f"{name} failed: {ending.error.text}")
    if ending.status < 0:
        reason = f"its process was ended by {name_signal(-ending.status)}"
        if -ending.status == getattr(signal, "SIGKILL", None):
            reason += f"; {_MEMORY}"
        elif last:
            reason += f", its last words: {last}"
        return ExportError(f"{name} failed: {reason}")
    if ending.status == 0:
        last = f"its process ended without a result{', its last words: ' * bool(last)}{last}"
    return ExportError(f"{name} failed: {last or f'exit status {ending.status}'}")


def _kind_of(word: str) -> type[MvsdkError]:
    for module in (mvsdk.errors, mvsdk_export.errors):
        kind = getattr(module, word, None)
        if isinstance(kind, type) and issubclass(kind, MvsdkError):
            return kind
    return ExportError


def _cannot_keep(name: str, number: int, cache: Path) -> OutputError:
    what, advice = _REFUSALS[number]
    return OutputError(f"{name} failed: {what} {quoted(cache)}; {advice}")


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, in turn."""
    seen: set[int] = set()
    found: BaseException | None = exc
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _number(exc: BaseException) -> int | None:
    """Return the number by which a system refuses to write more; None for any other error."""
    if isinstance(exc, MvsdkError):  # quotes names that may say anything
        return None
    if isinstance(exc, OSError) and exc.errno is not None:
        return exc.errno if exc.errno in _REFUSALS else None
    return _told(str(exc))


def _told(text: str) -> int | None:
    return next((number for number, told in _TOLD.items() if told.search(text)), None)


def _can_write(folder: Path) -> bool:
    """Try whether the disk takes a little more, for what swallows the errors of writing."""
    probe = folder / f"probe-{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        return exc.errno not in NO_SPACE
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return True
