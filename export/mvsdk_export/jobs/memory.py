"""How much memory is free, for jobs that run side by side."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_UNKNOWN_BYTES = 4 << 30


def free_bytes() -> int:
    """Return the memory that more processes may take, in bytes; 4 GiB where nobody tells."""
    found = [_available_bytes(), _left_bytes()]
    known = [value for value in found if value is not None]
    return min(known, default=_UNKNOWN_BYTES)


def _available_bytes() -> int | None:
    """Return what the system has available."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("MemAvailable:")).split()[1])
    with contextlib.suppress(OSError, ValueError, AttributeError):  # macOS: what it has in all
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _left_bytes() -> int | None:
    """Return what a container lets its processes take beyond what they have taken."""
    with contextlib.suppress(OSError, ValueError):
        limit = (_CGROUP / "memory.max").read_text(encoding="utf-8").strip()
        taken = int((_CGROUP / "memory.current").read_text(encoding="utf-8"))
        stat = (_CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
        cached = sum(int(x.split()[1]) for x in stat if x.startswith("inactive_file "))
        return max(0, int(limit) - taken + cached)  # "max" is no number: there is no limit
    return None
