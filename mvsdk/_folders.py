"""What systems can do with folders: lock them, sync them, mount something on them.

Shares and mounted folders (SMB, FUSE, drives of Windows under WSL) know less than a disk: some
cannot sync a folder, or not lock one. There each of these is left out, as neither decides whether
the work is there; the content of every file is always synced.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from pathlib import Path

from mvsdk._leftovers import is_hidden

try:
    import fcntl
except ImportError:  # Windows, where a stale folder is left for the user to remove
    fcntl = None

logger = logging.getLogger(__name__)


def is_mounted(path: Path) -> bool:
    """Return whether a disk, a volume or a single file or folder (a bind mount) is mounted here."""
    if os.path.ismount(path):
        return True
    try:  # ismount sees no bind mount of the same disk
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
        here = os.fsencode(path.resolve())
    except (OSError, RuntimeError):
        return False
    return any(here == _octal(line.split(b" ")[4]) for line in mounts)


def _octal(place: bytes) -> bytes:
    """Undo how the kernel writes spaces and line breaks."""
    return re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), place)


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
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    flags = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sync_tree(root: Path) -> None:
    """Bring all that lies in a folder to the disk.

    Raises:
        OSError: If the system refuses that for the content of a file.
    """
    for path in root.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif not is_hidden(path.name):  # which its owner may remove meanwhile
            sync_file(path)
    sync_folder(root)


def sync_file(path: Path) -> None:
    """Bring the content of a file to the disk.

    Raises:
        OSError: If the system refuses.
    """
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, where the system does that.

    Shares (SMB), FUSE and drives under WSL refuse in many ways, and Windows opens no folder. What
    was renamed is there all the same, and only a loss of power could still undo it.
    """
    if os.name == "nt":
        return
    try:
        sync_file(path)
    except OSError as exc:
        logger.debug("cannot sync the folder %s: %s", path, exc)
