"""Stages of an export: each runs in a child process, once, and is found again by its content.

A stage is a function of `mvsdk_export.work`, its arguments, and the stages it reads. Their hash,
with that of the toolchain's own source and the versions of the tools, names a folder of the cache;
a stage whose folder exists is finished. So an interrupted export goes on where it stopped, and no
stage outlives a change of anything that it depends on. A child bounds memory: what a compiler
takes is returned to the system with the process, and a compiler that crashes takes only the child.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mvsdk
from mvsdk._staging import StagingFolder
from mvsdk.errors import OutputError
from mvsdk_export.errors import ExportError

RESULT = "result.json"
LOG = "log.txt"
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-qnn", "numpy")
"""Packages whose versions decide what a stage makes."""

_ROOT = Path(__file__).parent
_NOT_STAGES = ("cli", "commands", "distill", "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One finished stage."""

    name: str
    key: str
    """Hash of everything that the result depends on."""
    folder: Path
    """Where its files are."""
    result: Mapping[str, Any]
    """What the function returned."""
    seconds: float
    peak_bytes: int
    """Largest resident memory of the child, bytes."""
    reused: bool
    """Whether an earlier run had finished it."""


class StageRunner:
    """Runs stages and remembers them in a cache folder."""

    def __init__(self, cache_folder: Path) -> None:
        """Use a cache; it is made when the first stage ends."""
        self.cache_folder = cache_folder
        self.finished: list[Stage] = []

    def run(
        self,
        name: str,
        function: str,
        arguments: Mapping[str, Any],
        *,
        needs: Mapping[str, Stage] | None = None,
        paths: Mapping[str, Path] | None = None,
        fingerprint: str = "",
    ) -> Stage:
        """Run a stage, or find it finished.

        Args:
            name: What people call it, such as "compile unet sm8650".
            function: Name of the function in `mvsdk_export.work`.
            arguments: JSON values for it.
            needs: Keyword -> finished stage, whose folder the function gets as a path.
            paths: Keyword -> file or folder outside the cache; where it lies decides nothing.
            fingerprint: Hash of what lies at `paths`.

        Raises:
            ExportError: If the function raises, or its process dies.
        """
        needs = needs or {}
        key = _key(function, arguments, {k: s.key for k, s in needs.items()}, fingerprint)
        folder = self.cache_folder / f"{function}-{key[:24]}"
        reused = (folder / RESULT).is_file()
        if not reused:
            places = {**(paths or {}), **{word: stage.folder for word, stage in needs.items()}}
            told = {word: str(path) for word, path in places.items()}
            self._make(name, function, {**arguments, **told}, folder)
        report = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        stage = Stage(
            name=name,
            key=key,
            folder=folder,
            result=report["result"],
            seconds=report["seconds"],
            peak_bytes=report["peak_bytes"],
            reused=reused,
        )
        self.finished.append(stage)
        return stage

    def forget(self) -> None:
        """Remove the finished stages of this run from the cache."""
        for stage in self.finished:
            shutil.rmtree(stage.folder, ignore_errors=True)

    def _make(self, name: str, function: str, arguments: Mapping[str, Any], folder: Path) -> None:
        if not (folder / RESULT).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # a killed `forget` left the rest of it
        staging = StagingFolder(folder, replaces=None)
        staging.create()
        try:
            job = {"function": function, "arguments": arguments, "output": str(staging.path)}
            _run_child(name, job, staging.path)
            staging.publish()
        except (OutputError, OSError):
            if not (folder / RESULT).is_file():
                raise
            # Another export finished the same stage meanwhile; by its key, it is as good as ours.
        finally:
            staging.discard()


def tool_versions() -> dict[str, str]:
    """Return the version of every installed tool that takes part in an export."""
    found: dict[str, str] = {}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _run_child(name: str, job: Mapping[str, Any], folder: Path) -> None:
    """Run one function in a child process; end the child with us, whatever ends us."""
    # -P: nothing in the current folder is code of ours.
    command = [sys.executable, "-P", "-m", "mvsdk_export.worker"]
    log = folder / LOG
    with log.open("wb") as sink:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        try:
            child.communicate(json.dumps(job).encode())
        except BaseException:
            _end(child)
            raise
    if child.returncode:
        raise ExportError(_failure(name, child.returncode, log))


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(timeout=3)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _failure(name: str, status: int, log: Path) -> str:
    """Return why a stage failed: its own message, or the signal that ended it."""
    lines = [x for x in log.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()]
    if status < 0:
        reason = f"its process was ended by {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:
            reason += "; if memory was short, export one --chip at a time"
        return f"{name} failed: {reason}"
    told = next((x.removeprefix("error: ") for x in lines if x.startswith("error: ")), None)
    return f"{name} failed: {told or (lines[-1] if lines else f'exit status {status}')}"


def _key(
    function: str, arguments: Mapping[str, Any], needs: Mapping[str, str], fingerprint: str
) -> str:
    parts = {
        "function": function,
        "arguments": arguments,
        "needs": needs,
        "fingerprint": fingerprint,
        "tools": tool_versions(),
        "source": source_hash(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def source_hash() -> str:
    """Return the hash of the source of toolchain and runtime, as far as stages run it."""
    digest = hashlib.sha256()
    for root in (_ROOT, Path(mvsdk.__file__).parent):
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root)
            if relative.parts[0] not in _NOT_STAGES:
                digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def timed(function: Any, arguments: Mapping[str, Any], output: Path) -> None:
    """Call a stage's function and write its report; the child's side of `StageRunner.run`."""
    import resource

    start = time.monotonic()
    result = function(**arguments, output=output)
    report = {
        "result": result,
        "seconds": time.monotonic() - start,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    (output / RESULT).write_text(json.dumps(report), encoding="utf-8")
