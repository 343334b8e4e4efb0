"""Stages for tests: small functions that fail, linger and print as compilers do.

A stage's process finds them once `probes_in` has put a folder on its path.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mvsdk.backends.native_output import captured_native_output
from mvsdk_export.errors import CheckpointError, UnsupportedOpError
from mvsdk_export.jobs.progress import counted

BLOCK = bytes(1 << 16)
NAMES = (
    "abort",
    "count",
    "crowd",
    "end_early",
    "fill",
    "fill_log",
    "outgrow",
    "print_an_error",
    "raise_an_error",
)

_SITE = f"""
import sys
import mvsdk_export.jobs.functions
import probe_stages
sys.modules["mvsdk_export.jobs.functions.probe_stages"] = probe_stages
mvsdk_export.jobs.functions.MODULES = {{"probe_stages": {NAMES!r}}}
"""


def probes_in(folder: Path) -> Path:
    """Return a folder for `sys.path` with which Python knows the functions below as stages."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SITE)
    return folder


def count(*, clips: int, output: Path) -> Mapping[str, Any]:
    for _ in counted(range(clips), "clips"):
        time.sleep(0.06)  # what comes faster is not told one by one
    return {"clips": clips}


def fill(*, way: str, output: Path) -> Mapping[str, Any]:
    """Write more than the disk holds."""
    if way == "numpy":
        np.savez(output / "calls.npz", *[np.ones(1 << 20)] * 8)
    folder = Path(tempfile.gettempdir()) if way == "temporary" else output
    try:
        with (folder / "big").open("wb") as file:
            for _ in range(1 << 10):
                file.write(BLOCK)
                file.flush()
    except OSError as exc:
        if way == "swallowed":
            raise UnsupportedOpError("the compiler refused x") from None
        if way == "reworded":
            raise UnsupportedOpError(f"the compiler refused x: {exc}") from exc
        if way == "native":
            os.write(2, b"cannot write: No space left on device\n")
            os.truncate(folder / "big", 0)
            os._exit(3)
        if way != "unnoticed":
            raise
    return {}


def fill_log(*, output: Path) -> Mapping[str, Any]:
    for _ in range(1 << 10):
        print(BLOCK.decode())
    return {}


def outgrow(*, output: Path) -> Mapping[str, Any]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    (output / "big").write_bytes(BLOCK * 2)
    return {}


def print_an_error(*, output: Path) -> Mapping[str, Any]:
    print("error: CheckpointError: what a library prints")
    os.write(1, b'{"kind": "CheckpointError", "text": "printed", "number": null}\n')
    raise UnsupportedOpError("the reason")


def raise_an_error(*, kind: str, output: Path) -> Mapping[str, Any]:
    raise {"CheckpointError": CheckpointError, "MemoryError": MemoryError, "OSError": OSError}[kind]


def abort(*, captured: bool, output: Path) -> Mapping[str, Any]:
    print("something before")
    if captured:
        with captured_native_output():
            _abort()
    _abort()
    return {}


def _abort() -> None:
    os.write(2, b"terminate called\n  what():  graph 7 has no input\n\n")
    os.abort()


def end_early(*, output: Path) -> Mapping[str, Any]:
    os._exit(0)


def crowd(*, output: Path) -> Mapping[str, Any]:
    """Start what a compiler starts, and go on for long."""
    endless = "import os, time\nif os.fork(): pass\ntime.sleep(600)"
    others = [subprocess.Popen([sys.executable, "-c", endless]) for _ in range(2)]
    print("crowded", flush=True)
    for other in others:
        other.wait()
    return {}
