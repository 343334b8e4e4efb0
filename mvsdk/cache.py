"""Where the toolchain keeps finished stages, and whoever else has something to keep."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mvsdk._text import encoding_fault, quoted
from mvsdk.errors import InputError


def cache_folder() -> Path:
    """Return the folder for things that can be made again; it may not exist yet.

    `$MVSDK_CACHE` if set, else what the system has for it: `$XDG_CACHE_HOME/mvsdk` or
    `~/.cache/mvsdk` on Linux, `~/Library/Caches/mvsdk` on macOS, `%LOCALAPPDATA%/mvsdk` on Windows.

    Raises:
        InputError: If its name is no UTF-8, which libraries that write models want.
    """
    folder = _find_folder()
    fault = encoding_fault(folder)
    if fault is not None:
        raise InputError(f"the cache is {quoted(folder)}: {fault}; set $MVSDK_CACHE to another")
    return folder


def _find_folder() -> Path:
    if chosen := os.environ.get("MVSDK_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mvsdk"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    root = os.environ.get(variable)
    return (Path(root) if root else Path.home() / ".cache") / "mvsdk"
