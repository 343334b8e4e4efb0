"""Where the toolchain keeps finished stages, and whoever else has something to keep."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for things that can be made again; it may not exist yet.

    `$MVSDK_CACHE` if set, else what the system has for it: `$XDG_CACHE_HOME/mvsdk` or
    `~/.cache/mvsdk` on Linux, `~/Library/Caches/mvsdk` on macOS, `%LOCALAPPDATA%/mvsdk` on Windows.
    """
    if chosen := os.environ.get("MVSDK_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mvsdk"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    root = os.environ.get(variable)
    return (Path(root) if root else Path.home() / ".cache") / "mvsdk"
