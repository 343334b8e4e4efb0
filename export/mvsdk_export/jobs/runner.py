"""Stages of an export: each runs in a child process, once, and is found again by its content.

A stage is a function of `mvsdk_export.jobs.functions`, its arguments, and the stages it reads. Their hash,
with that of the toolchain's own source and the versions of the tools, names a folder of the cache;
a stage whose folder exists is finished. So an interrupted export goes on where it stopped, and no
stage outlives a change of anything that it depends on. A runner holds a shared lock on every stage
that it uses, so that no other takes one away from under it. A child bounds memory: what a compiler
takes is returned to the system with the process, and a compiler that crashes takes only the child.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import mvsdk
from mvsdk._staging import StagingFolder, lock_folder
from mvsdk.errors import MvsdkError
from mvsdk_export.jobs.failures import failure_of, keeping
from mvsdk_export.jobs.interrupts import interrupted_once, undisturbed
from mvsdk_export.jobs.process import OnItems, run_child

RESULT = "result.json"
LOG = "log.txt"
SCRATCH = "scratch"
"""Folder for temporary files while a stage is made: on the disk that has room for stages, and gone
with the stage."""
TOOLS = (
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-qnn",
    "numpy",
    "ml_dtypes",
    "pillow",
    "coremltools",
    "coreai-core",
    "coreai-torch",
    "coreai-opt",
    "executorch",
    "torchao",
)
"""Packages whose versions decide what a stage makes."""

_PAUSE_S = 0.1
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
    """Largest resident memory of the child, bytes; 0 where the system does not tell."""
    base_bytes: int = 0
    """What the child had taken before its function began: libraries."""
    reused: bool
    """Whether an earlier run had finished it."""
    needs: tuple[Stage, ...] = ()
    """Stages that it reads."""


Run = Callable[..., Stage]
"""`StageRunner.run`, or what tells the progress first."""


class StageRunner:
    """Runs stages and remembers them in a cache folder; close it to let go of them."""

    def __init__(self, cache_folder: Path) -> None:
        """Use a cache; it is made when the first stage ends."""
        self.cache_folder = cache_folder
        self.finished: list[Stage] = []
        self._locks: dict[Path, int | None] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the stages; they stay in the cache."""
        self.close()

    def run(
        self,
        name: str,
        function: str,
        arguments: Mapping[str, Any],
        *,
        needs: Mapping[str, Stage | Sequence[Stage]] | None = None,
        paths: Mapping[str, Path] | None = None,
        fingerprint: str = "",
        on_items: OnItems | None = None,
    ) -> Stage:
        """Run a stage, or find it finished.

        Args:
            name: What people call it, such as "compile unet sm8650".
            function: Name of the function in `mvsdk_export.jobs.functions`.
            arguments: JSON values for it.
            needs: Keyword -> finished stage, whose folder the function gets as a path; or several
                of them, for a list of paths.
            paths: Keyword -> file or folder outside the cache; where it lies decides nothing.
            fingerprint: Hash of what lies at `paths`.
            on_items: Progress inside the stage, as `run_child` tells it.

        Raises:
            MvsdkError: What the function raised; `ExportError` for errors of other libraries, and
                if its process dies.
            OutputError: If the cache cannot be written, or its disk is full.
        """
        needs = needs or {}
        keys = {word: _of_each(found, lambda s: s.key) for word, found in needs.items()}
        key = _key(function, arguments, keys, fingerprint)
        folder = self.cache_folder / f"{function}-{key[:24]}"
        reused = self._hold(folder)
        if not reused:
            told = {word: str(path) for word, path in (paths or {}).items()}
            told |= {w: _of_each(found, lambda s: str(s.folder)) for w, found in needs.items()}
            while not self._hold(folder):  # another runner may forget it as soon as it is there
                job = {"function": function, "arguments": {**arguments, **told}}
                with interrupted_once():
                    self._make(name, job, folder, on_items)
                if not self._hold(folder):
                    time.sleep(_PAUSE_S)  # until who forgets it has done so
        report = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        stage = Stage(
            name=name,
            key=key,
            folder=folder,
            result=report["result"],
            seconds=report["seconds"],
            peak_bytes=report["peak_bytes"],
            base_bytes=report["base_bytes"],
            reused=reused,
            needs=tuple(_flat(needs)),
        )
        self.finished.append(stage)
        return stage

    def forget(self) -> None:
        """Remove the finished stages of this run from the cache, except what others use."""
        self.close()
        for folder in {stage.folder for stage in self.finished}:
            with contextlib.suppress(OSError):
                lock = lock_folder(folder)
                # Aside first: half a stage must never be found. The name is that of abandoned work.
                aside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")
                try:
                    folder.rename(aside)
                    shutil.rmtree(aside, ignore_errors=True)
                finally:
                    if lock is not None:
                        os.close(lock)

    def close(self) -> None:
        """Let go of the stages; they stay in the cache."""
        while self._locks:
            _, lock = self._locks.popitem()
            if lock is not None:
                os.close(lock)

    def _hold(self, folder: Path) -> bool:
        """Lock a finished stage against being forgotten; return whether it is there."""
        if folder in self._locks:
            return True
        try:
            lock = lock_folder(folder, shared=True)
        except OSError:  # not there, or another runner is forgetting it
            return False
        if _is_finished(folder):  # still there, now that it is locked
            self._locks[folder] = lock
            return True
        if lock is not None:
            os.close(lock)
        return False

    def _make(
        self, name: str, job: Mapping[str, Any], folder: Path, on_items: OnItems | None
    ) -> None:
        if not _is_finished(folder):
            shutil.rmtree(folder, ignore_errors=True)  # no stage, whatever it is
        try:
            with keeping(name, self.cache_folder):
                staging = StagingFolder(folder, replaces=None)
            try:
                with keeping(name, self.cache_folder):
                    staging.create()
                _run_child(name, job, staging.path, self.cache_folder, on_items)
                with keeping(name, self.cache_folder):
                    staging.publish()
            finally:
                with undisturbed():
                    staging.discard()
        except MvsdkError:
            # Another export may have finished it meanwhile; by its key, it is as good as ours.
            if not _is_finished(folder):
                raise


def _is_finished(folder: Path) -> bool:
    """Return whether a folder holds a whole report; a disk may have lost part of it."""
    try:
        report = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and {"result", "seconds", "peak_bytes"} <= report.keys()


def read_result(folder: Path) -> Mapping[str, Any]:
    """Return what the function of a finished stage returned."""
    return json.loads((folder / RESULT).read_text(encoding="utf-8"))["result"]


def tool_versions() -> dict[str, str]:
    """Return the version of every installed tool that takes part in an export."""
    found: dict[str, str] = {}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _run_child(
    name: str, job: Mapping[str, Any], folder: Path, cache: Path, on_items: OnItems | None
) -> None:
    """Run one function in a child process, which makes the stage in a folder.

    Raises:
        MvsdkError: As `StageRunner.run`.
    """
    scratch, log = folder / SCRATCH, folder / LOG
    with keeping(name, cache):
        scratch.mkdir()
        sink = log.open("wb")
    with sink:
        places = {"output": str(folder), "scratch": str(scratch)}
        ending = run_child({**job, **places}, sink, on_items=on_items)
    if ending.status or not (folder / RESULT).is_file():
        raise failure_of(name, ending, log, scratch, cache)
    shutil.rmtree(scratch, ignore_errors=True)


def seconds_of(stages: Sequence[Stage]) -> float:
    """Return the seconds of stages and of all that they read, each once."""
    every: dict[str, float] = {}
    todo = list(stages)
    while todo:
        stage = todo.pop()
        if stage.key not in every:
            every[stage.key] = stage.seconds
            todo += stage.needs
    return sum(every.values())


def _flat(needs: Mapping[str, Stage | Sequence[Stage]]) -> Iterator[Stage]:
    for found in needs.values():
        if isinstance(found, Stage):
            yield found
        else:
            yield from found


def _of_each(found: Stage | Sequence[Stage], value: Callable[[Stage], str]) -> str | list[str]:
    return value(found) if isinstance(found, Stage) else [value(stage) for stage in found]


def _key(
    function: str, arguments: Mapping[str, Any], needs: Mapping[str, Any], fingerprint: str
) -> str:
    parts = {
        "function": function,
        "arguments": arguments,
        "needs": needs,
        "fingerprint": fingerprint,
        "tools": tool_versions(),
        "host": [*sys.version_info[:2], sys.platform, platform.machine()],
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
    start, base = time.monotonic(), peak_bytes()
    result = function(**arguments, output=output)
    report = {
        "result": result,
        "seconds": time.monotonic() - start,
        "peak_bytes": peak_bytes(),
        "base_bytes": base,
    }
    (output / RESULT).write_text(json.dumps(report), encoding="utf-8")


def peak_bytes() -> int:
    """Return the most memory that this process held at once, in bytes; 0 where nobody counts it."""
    # Linux hands ru_maxrss on to a program from the one that starts it: of a large parent, it is
    # the parent's. VmHWM begins with the program.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("VmHWM:")).split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
