"""Folders and files that appear whole or not at all: build beside the output, sync, rename.

For a folder the work happens in `.NAME.TOKEN.partial` beside NAME. Replacing moves the old folder
aside as `.NAME.TOKEN.old` for the moment of the swap. Both are held by an advisory lock of the
process that made them; the system drops it when the process ends, however it ends. The next writer
of NAME therefore knows what is stale: it removes abandoned work, and puts an old folder back if the
process died between the two renames of a swap.

A file is made as `.mvsdk-PID-TOKEN.part` in its folder; mvsdk/_leftovers.py says whose are removed.

Some servers of shares rename no folder that is open, a lock included, and overlays no folder of a
lower layer: there the lock is let go, and the folder copied.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Generator
from pathlib import Path

from mvsdk._folders import is_mounted, lock_folder, sync_file, sync_folder, sync_tree
from mvsdk._leftovers import is_debris, part_name, remove_dead_parts
from mvsdk._text import encoding_fault, name_fault, quoted, reason_of
from mvsdk.errors import OutputError

logger = logging.getLogger(__name__)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_SWAP_TENTHS = 50
"""Tenths of a second to wait for another writer's swap, which is two renames."""
_SWAP_MOST_S = 60.0
"""Where nothing can be locked, a swap that began before this has been given up."""
_OPEN_ELSEWHERE = (errno.EACCES, errno.EPERM, errno.EBUSY)
"""What servers of shares say to a rename of a folder that somebody, we too, has open."""


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
        elif exc.errno == errno.EFBIG:
            advice = "choose a disk that takes files of that size (FAT: below 4 GiB)"
        raise OutputError(f"cannot write {quoted(out)}: {reason_of(exc)}; {advice}") from exc


def check_place(out: Path, *, replaces: str | None = None) -> None:
    """Refuse a place that cannot be written before minutes of work, by trying it.

    Args:
        out: The final folder.
        replaces: As in `StagingFolder`.

    Raises:
        OutputError: If a folder cannot be made there; nothing is left behind.
    """
    place = StagingFolder(out, replaces=replaces)
    place.create()
    place.discard()


def check_name(path: Path) -> None:
    """Refuse, before any work, a name that models or bundles cannot be opened by in the end.

    Raises:
        OutputError: If it holds control characters, or it or the folder that it is in is no UTF-8.
    """
    fault = name_fault(path.name) or encoding_fault(path)
    if fault is not None:
        raise OutputError(f"cannot write {quoted(path)}: {fault}; choose another name")
    try:
        folder = Path.cwd()
    except OSError as exc:  # it is gone
        raise OutputError(
            f"cannot write {quoted(path)}: {reason_of(exc)}; change to a folder that exists"
        ) from exc
    fault = None if path.is_absolute() else encoding_fault(folder)
    if fault is not None:
        raise OutputError(
            f"cannot write into the working folder {quoted(folder)}: {fault}; change to another"
        )


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Lend a name in the same folder; put the file in place, synced, if the block ends well.

    Raises:
        OSError: If the system refuses; what was at `path` is still there then.
    """
    temporary = path.absolute().with_name(part_name())
    remove_dead_parts(temporary.parent)
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(temporary.parent)
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError as exc:  # must not hide what went wrong, nor that all went well
            logger.debug("%s is left: %s", temporary, exc)


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
            raise OutputError(f"{quoted(out)} is no name for an output folder; give a new name")
        check_name(out)
        self.out = out.absolute()
        self._replaces = replaces
        self._token = secrets.token_hex(8)
        self._lock: int | None = None
        self._made_parents: list[Path] = []
        with writing(self.out):
            _recover(self.out, replaces)
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
        sync_tree(self.path)
        if self._replaces is not None and os.path.lexists(self.out):
            self._swap()
        else:
            self._rename_to_out()
        self._made_parents.clear()
        sync_folder(self.out.parent)

    def _rename_to_out(self) -> None:
        locks = [] if self._lock is None else [self._lock]
        try:
            _rename(self.path, self.out, locks)
        finally:
            self._lock = next(iter(locks), None)

    def _swap(self) -> None:
        old = self._sibling("old")
        # Held over both renames: nobody is to take the old folder for abandoned between them.
        locks = _lock_soon(self.out)
        try:
            try:
                _rename(self.out, old, locks)
            except OSError as exc:
                if exc.errno != errno.EXDEV:
                    raise
                self._copy_aside(old, locks)
            self._rename_to_out()
        except BaseException:
            if old.exists() and not os.path.lexists(self.out):
                old.rename(self.out)
            raise
        finally:
            for lock in locks:
                os.close(lock)
        shutil.rmtree(old, ignore_errors=True)

    def _copy_aside(self, old: Path, locks: list[int]) -> None:
        """Move the old folder by copying it: overlays rename no folder of a lower layer."""
        try:
            old.mkdir()
            locks += _lock_soon(old)
            shutil.copytree(self.out, old, symlinks=True, dirs_exist_ok=True)
        except BaseException:
            shutil.rmtree(old, ignore_errors=True)
            raise
        # First what makes it one that may be replaced: half of it must not pass for whole.
        (self.out / str(self._replaces)).unlink(missing_ok=True)
        try:
            shutil.rmtree(self.out)
        except BaseException:
            shutil.copytree(old, self.out, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(old, ignore_errors=True)
            raise

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
        name = quoted(self.out)
        if self._replaces is None:
            raise OutputError(f"{name} exists; add --overwrite or choose another output")
        if self.out.is_symlink() or not self.out.is_dir():
            raise OutputError(f"{name} is not a folder, so it is not overwritten; remove it first")
        held = any(not is_debris(path.name) for path in self.out.iterdir())
        if held and not (self.out / self._replaces).is_file():
            raise OutputError(
                f"{name} holds no {self._replaces}, so it is not overwritten; choose another output"
            )
        if is_mounted(self.out):
            raise OutputError(
                f"{name} is where a disk or volume is mounted, which nothing can replace; "
                "choose a folder inside it"
            )


def _rename(source: Path, target: Path, locks: list[int]) -> None:
    """Rename a folder; let go of its locks if the system renames none that is open."""
    try:
        source.rename(target)
    except OSError as exc:
        if not locks or exc.errno not in _OPEN_ELSEWHERE:
            raise
        while locks:
            os.close(locks.pop())
        source.rename(target)


def _lock_soon(path: Path) -> list[int]:
    """Lock a folder that another writer may hold for the moment of a swap; [] without locks."""
    for _ in range(_SWAP_TENTHS):
        with contextlib.suppress(BlockingIOError):
            lock = lock_folder(path)
            return [] if lock is None else [lock]
        time.sleep(0.1)
    lock = lock_folder(path)
    return [] if lock is None else [lock]


def _recover(out: Path, replaces: str | None) -> None:
    """Put back or remove the hidden folders of writers that are no longer alive."""
    if not out.parent.is_dir():
        return
    hidden = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{16}}\.(partial|old)")
    for folder in sorted(out.parent.iterdir()):
        match = hidden.fullmatch(folder.name)
        if not match:
            continue
        with contextlib.suppress(OSError):  # held by a living writer, or not ours to remove
            lock = lock_folder(folder)
            try:
                _recover_folder(folder, out, replaces, match[1], locked=lock is not None)
            finally:
                if lock is not None:
                    os.close(lock)


def _recover_folder(
    folder: Path, out: Path, replaces: str | None, kind: str, *, locked: bool
) -> None:
    if not locked and time.time() - folder.stat().st_ctime < _SWAP_MOST_S:
        return
    if kind == "old" and not os.path.lexists(out):
        folder.rename(out)
        logger.warning("put back %s after an interrupted overwrite", out)
    # Without locks nobody knows whether another still works in it: that is left to the user.
    elif locked and (kind == "partial" or (replaces and (out / replaces).is_file())):
        shutil.rmtree(folder, ignore_errors=True)
        logger.info("removed %s, left by an interrupted run", folder)
