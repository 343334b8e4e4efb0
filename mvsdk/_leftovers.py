"""What lies in folders and was not put there on purpose: files of systems, and of dead writers.

A file under construction is `.mvsdk-PID-TOKEN.part`. TOKEN is 16 hexadecimal digits. The first 8
stand for the host: its name, its identity where the system has one, and on Linux the namespace of
process ids. The next writer in the folder removes a part

- of this host, if no process has that PID any more;
- of any other, if nobody has written to it for a day: the folder may be shared, and a PID of
  another host says nothing here.

No lock decides, although one would tell more on a local disk: on shares a lock may not reach the
other hosts at all (FUSE), or may keep the writer itself, which opens the file once more by its
name, from writing (SMB).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
import secrets
import stat
import time
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

ABANDONED_AFTER_S = 24 * 3600.0
"""Far beyond what any write takes between two blocks, and beyond clocks that disagree."""

_PART = re.compile(r"\.mvsdk-([0-9]{1,10})-([0-9a-f]{8})?[0-9a-f]{8}\.part")
_DEBRIS = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini", re.IGNORECASE | re.DOTALL)
_SYSTEM_NAMES = ("thumbs.db", "desktop.ini")


def is_debris(name: str) -> bool:
    """Return whether file browsers of macOS and Windows leave files of this name, and nobody else.

    `.DS_Store`, `._NAME` (what a disk cannot keep with NAME itself), `Thumbs.db`, `desktop.ini`.
    """
    return _DEBRIS.fullmatch(name) is not None


def is_hidden(name: str) -> bool:
    """Return whether a name is one that no file of a bundle has, and a system may well leave.

    Names that begin with a dot: systems, file browsers, shares and synchronisers use them for what
    is theirs (`.DS_Store`, `.nfs0001`, `.fuse_hidden01`, `.cache`, `.directory`). And two that do
    not begin with one, of Windows.
    """
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def part_name() -> str:
    """Return a new name for a file under construction."""
    return f".mvsdk-{os.getpid()}-{_host()}{secrets.token_hex(4)}.part"


def remove_dead_parts(folder: Path) -> None:
    """Remove files under construction whose writers are gone; whatever is refused is left."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PART.fullmatch(entry.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if _is_ours(status) and _is_dead(int(match[1]), match[2], status.st_mtime):
                    os.unlink(entry.path)
                    logger.info("removed %s, left by an interrupted run", entry.path)


def _is_ours(status: os.stat_result) -> bool:
    # Windows has no user ids; there the right to remove a file decides.
    mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISREG(status.st_mode) and mine


def _is_dead(pid: int, host: str | None, changed_s: float) -> bool:
    if time.time() - changed_s > ABANDONED_AFTER_S:
        return True
    return host == _host() and os.name == "posix" and not _is_running(pid)


def _is_running(pid: int) -> bool:
    """Return whether a process has this id (not on Windows, where signal 0 is no question)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's; or a number that no process has
        return True
    return True


@cache
def _host() -> str:
    """Return 8 hexadecimal digits for where a PID means one process."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text(encoding="utf-8", errors="replace"))
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:8]
