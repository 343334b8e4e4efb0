"""Jobs for tests: small ones that fail, linger and print as compilers do."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvsdk.backends.native_output import captured_native_output
from mvsdk_export.errors import CheckpointError, UnsupportedOpError
from mvsdk_export.jobs.job import Files, Inputs, Job
from mvsdk_export.jobs.progress import counted

BLOCK = bytes(1 << 16)


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe(Job[dict[str, Any]]):
    """A job of tests."""

    name: str = "try it"


@dataclass(frozen=True, kw_only=True, eq=False)
class Note(Probe):
    """Returns what it is told, and what it finds."""

    text: str = ""
    files: Files | None = None
    first: Job[dict[str, Any]] | None = None
    pieces: tuple[Job[dict[str, Any]], ...] = ()

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        (output / "note.txt").write_text(self.text)
        others = [*([self.first] if self.first else []), *self.pieces]
        return {
            "text": self.text,
            "found": [inputs[other].result["text"] for other in others],
            "notes": [(inputs[other].folder / "note.txt").read_text() for other in others],
            "files": [p.read_text() for p in self.files.places.values()] if self.files else [],
            "pid": os.getpid(),
            "parent": os.getppid(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Other(Note):
    """Does the same under another name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look(Probe):
    """Looks around in its process."""

    module: str
    variable: str

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        return {
            "is_loaded": self.module in sys.modules,
            "value": os.environ.get(self.variable),
            "parent": os.getppid(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Count(Probe):
    """Counts clips."""

    clips: int

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        for _ in counted(range(self.clips), "clips"):
            time.sleep(0.06)  # what comes faster is not told one by one
        return {"clips": self.clips}


@dataclass(frozen=True, kw_only=True, eq=False)
class Meet(Probe):
    """Waits for another job to be there at the same time."""

    folder: str
    word: str
    other: str
    seconds: float = 20.0

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        Path(self.folder, self.word).touch()
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            if Path(self.folder, self.other).exists():
                time.sleep(0.2)
                return {"met": True}
            time.sleep(0.01)
        return {"met": False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Fill(Probe):
    """Writes more than the disk holds."""

    way: str

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        way = self.way
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


@dataclass(frozen=True, kw_only=True, eq=False)
class FillLog(Probe):
    """Prints more than the disk holds."""

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        for _ in range(1 << 10):
            print(BLOCK.decode())
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Outgrow(Probe):
    """Writes a file that is larger than allowed."""

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        (output / "big").write_bytes(BLOCK * 2)
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class PrintAnError(Probe):
    """Prints what looks like an error."""

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        print("error: CheckpointError: what a library prints")
        os.write(1, b'{"kind": "CheckpointError", "text": "printed", "number": null}\n')
        raise UnsupportedOpError("the reason")


@dataclass(frozen=True, kw_only=True, eq=False)
class RaiseAnError(Probe):
    """Raises."""

    kind: str

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        known = {"CheckpointError": CheckpointError, "MemoryError": MemoryError}
        raise {**known, "OSError": OSError, "SystemExit": SystemExit}[self.kind]


@dataclass(frozen=True, kw_only=True, eq=False)
class Abort(Probe):
    """Crashes as native code does."""

    captured: bool

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        print("something before")
        if self.captured:
            with captured_native_output():
                _abort()
        _abort()
        return {}


def _abort() -> None:
    os.write(2, b"terminate called\n  what():  graph 7 has no input\n\n")
    os.abort()


@dataclass(frozen=True, kw_only=True, eq=False)
class EndEarly(Probe):
    """Ends its process without a result."""

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        os._exit(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crowd(Probe):
    """Starts what a compiler starts, and goes on for long."""

    word: str = "crowded"

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        endless = "import os, time\nif os.fork(): pass\ntime.sleep(600)"
        others = [subprocess.Popen([sys.executable, "-c", endless]) for _ in range(2)]
        print(self.word, flush=True)
        for other in others:
            other.wait()
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Copy(Probe):
    """Stands for whatever made the files of a folder."""

    files: Files
    result: tuple[tuple[str, int], ...] = ()

    def run(self, inputs: Inputs, output: Path) -> dict[str, Any]:
        for path in self.files.places["folder"].iterdir():
            (output / path.name).write_bytes(path.read_bytes())
        return dict(self.result)
