"""Folders and files that appear whole or not at all: build beside the output, sync, rename.

For a folder the work happens in `.NAME.TOKEN.partial` beside NAME. Replacing moves the old folder
aside as `.NAME.TOKEN.old` for the moment of the swap. Both are held by an advisory lock of the
process that made them; the system drops it when the process ends, however it ends. The next writer
of NAME therefore knows what is stale: it removes abandoned work, and puts an old folder back if the
process died between the two renames of a swap.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

from mvsdk.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows, where a stale folder is left for the user to remove
    fcntl = None

logger = logging.getLogger(__name__)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def writing(out: Path) -> Generator[None]:
    """Turn what the system refuses into one line that says what to do.

    Raises:
        OutputError: For every `OSError` of the body.
    """
    try:
        yield
    except OSError as exc:
        advice = "choose another output"
        if exc.errno in NO_SPACE:
            advice = "free some space or choose another disk"
        elif exc.errno in NOT_ALLOWED:
            advice = "choose a folder that you may write to"
        reason = (exc.strerror or str(exc) or type(exc).__name__).lower()
        raise OutputError(f"cannot write {str(out)[:256]!r}: {reason}; {advice}") from exc


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Lend a name in the same folder; put the file in place, synced, if the block ends well.

    Raises:
        OSError: If the system refuses; what was at `path` is still there then.
    """
    temporary = path.absolute().with_name(f".mvsdk-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.absolute().parent)
    finally:
        temporary.unlink(missing_ok=True)


class StagingFolder:
    """A folder under construction, which takes its final name in one step."""

    def __init__(self, out: Path, *, replaces: str | None) -> None:
        """Check the output; recover what killed processes left beside it.

        Args:
            out: The final folder.
            replaces: None refuses an `out` that exists. A file name allows to replace a folder
                that holds such a file, or nothing at all.

        Raises:
            OutputError: If `out` exists and may not be replaced, or is no name for a folder.
        """
        if out.name in ("", "..") or "\0" in str(out):
            raise OutputError(f"{str(out)!r} is no name for an output folder; give a new name")
        self.out = out.absolute()
        self._replaces = replaces
        self._token = secrets.token_hex(8)
        self._lock: int | None = None
        self._made_parents: list[Path] = []
        with writing(self.out):
            _recover(self.out)
            self._check_free()

    @property
    def path(self) -> Path:
        """The hidden folder to work in."""
        return self._sibling("partial")

    def create(self) -> None:
        """Make the hidden folder, and parents as needed.

        Raises:
            OutputError: If the place cannot be written; nothing is left behind.
        """
        try:
            with writing(self.out):
                self._make_parents()
                self._make_locked()
        except BaseException:
            self.discard()
            raise

    def _make_locked(self) -> None:
        """Make and lock the hidden folder.

        Between the two, another writer of the same output may take it for abandoned and remove
        it; a fresh name starts over.
        """
        while self._lock is None:
            self.path.mkdir()
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                self._lock = lock_folder(self.path)
                if self._lock is None or os.path.lexists(self.path):
                    return
                os.close(self._lock)
                self._lock = None
            self._token = secrets.token_hex(8)

    def publish(self) -> None:
        """Sync everything to disk and rename to the final name.

        Raises:
            OSError: If the system refuses; `out` is then what it was before.
            OutputError: If `out` came into being meanwhile.
        """
        self._check_free()
        _sync_tree(self.path)
        if self._replaces is not None and os.path.lexists(self.out):
            self._swap()
        else:
            self.path.rename(self.out)
        self._made_parents.clear()
        _sync(self.out.parent)

    def _swap(self) -> None:
        old = self._sibling("old")
        lock = lock_folder(self.out)
        try:
            self.out.rename(old)
            self.path.rename(self.out)
        except BaseException:
            if old.exists() and not os.path.lexists(self.out):
                old.rename(self.out)
            raise
        finally:
            if lock is not None:
                os.close(lock)
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Let go of the folder: remove it if it was not published."""
        shutil.rmtree(self.path, ignore_errors=True)
        if os.path.lexists(self.out):  # interrupted at the very end of a swap
            shutil.rmtree(self._sibling("old"), ignore_errors=True)
        for parent in reversed(self._made_parents):
            with contextlib.suppress(OSError):  # another process put something there
                parent.rmdir()
        self._made_parents.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _sibling(self, kind: str) -> Path:
        return self.out.with_name(f".{self.out.name}.{self._token}.{kind}")

    def _make_parents(self) -> None:
        missing = [folder for folder in self.out.parents if not os.path.lexists(folder)]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made_parents.append(folder)

    def _check_free(self) -> None:
        if not os.path.lexists(self.out):
            return
        name = repr(str(self.out))
        if self._replaces is None:
            raise OutputError(f"{name} exists; add --overwrite or choose another output")
        if self.out.is_symlink() or not self.out.is_dir():
            raise OutputError(f"{name} is not a folder, so it is not overwritten; remove it first")
        if any(self.out.iterdir()) and not (self.out / self._replaces).is_file():
            raise OutputError(
                f"{name} holds no {self._replaces}, so it is not overwritten; choose another output"
            )


def _recover(out: Path) -> None:
    """Put back or remove the hidden folders of writers that are no longer alive."""
    if fcntl is None or not out.parent.is_dir():
        return
    hidden = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{16}}\.(partial|old)")
    for folder in sorted(out.parent.iterdir()):
        match = hidden.fullmatch(folder.name)
        if not match:
            continue
        with contextlib.suppress(OSError):  # held by a living writer, or not ours to remove
            lock = _flock(folder, shared=False)
            try:
                if match[1] == "old" and not os.path.lexists(out):
                    folder.rename(out)
                    logger.warning("put back %s after an interrupted overwrite", out)
                else:
                    shutil.rmtree(folder, ignore_errors=True)
                    logger.info("removed %s, left by an interrupted run", folder)
            finally:
                os.close(lock)


def lock_folder(path: Path, *, shared: bool = False) -> int | None:
    """Lock a folder until the descriptor is closed, at the latest when the process ends.

    Args:
        path: The folder.
        shared: Lock it for reading, beside other readers.

    Returns:
        A descriptor that holds the lock; None where the system has no locks.

    Raises:
        BlockingIOError: If another process holds it.
        FileNotFoundError: If there is no such folder.
    """
    try:
        return _flock(path, shared=shared)
    except (BlockingIOError, FileNotFoundError):
        raise
    except OSError:
        return None


def _flock(path: Path, *, shared: bool) -> int:
    flags = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        if fcntl is not None:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sync_tree(root: Path) -> None:
    for path in root.rglob("*"):
        _sync(path)
    _sync(root)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
