"""Exports that are killed, whole or in part, at any moment: nothing half, nobody left, on it goes.

`MVSDK_TEST_KILLS` says how often; CI does it a few times.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from exporting import SIZE, Toolchain, children_of, make_toolchain
from marked_processes import Marked, needs_proc

from mvsdk.bundle import Bundle

KILLS = int(os.environ.get("MVSDK_TEST_KILLS", "6"))
SEED = 17

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.exhaustive,
    needs_proc,
]


class Killed:
    """An export in a process of its own, and whoever comes of it."""

    def __init__(self, toolchain: Toolchain, command: tuple[str | Path, ...]) -> None:
        self._marked = Marked()
        path = os.pathsep.join([str(toolchain.packages), *filter(None, sys.path)])
        self._log = toolchain.packages / "said.txt"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mvsdk", *map(str, command)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={
                    **self._marked.environment,
                    "PYTHONPATH": path,
                    "MVSDK_CACHE": str(toolchain.cache),
                },
            )

    def said(self) -> list[str]:
        """Return what the export said."""
        return self._log.read_text("utf-8").splitlines()

    def victims(self) -> list[int]:
        """Return the export, the warm process and the jobs, as far as they are there."""
        export = self.process.pid
        warm = children_of(export) if self.process.poll() is None else []
        jobs: list[int] = []
        for pid in warm:
            with contextlib.suppress(OSError):
                jobs += children_of(pid)
        return [export, *warm, *jobs]

    def survivors(self) -> list[int]:
        """Wait for all that it started to end; return the ids of those that have not."""
        return self._marked.survivors(5.0)

    def end(self) -> None:
        """End all of it."""
        self.process.kill()
        self.process.wait()
        self._marked.kill()


@contextlib.contextmanager
def exporting(toolchain: Toolchain, command: tuple[str | Path, ...]) -> Iterator[Killed]:
    export = Killed(toolchain, command)
    try:
        yield export
    finally:
        export.end()


def test_killed_exports_leave_nothing_half_and_nobody_and_go_on(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    toolchain, out = make_toolchain(tmp_path), tmp_path / "bundles" / "a.mvbundle"
    command = (
        *("export", "--target", "onnx", "--precision", "fp32,w8a16", "--overwrite"),
        *("--checkpoint", tiny_model_folder, *SIZE, "--steps", "1", "--out", out),
    )
    chance = random.Random(SEED)
    kinds = {"export": 0, "warm process": 0, "job": 0, "too late": 0}
    for round_ in range(KILLS):
        with exporting(toolchain, command) as export:
            moment_s = chance.uniform(0.5, 14.0)
            deadline = time.monotonic() + moment_s
            while time.monotonic() < deadline and export.process.poll() is None:
                time.sleep(0.02)
            victims = export.victims()
            number = min(round_ % 3, len(victims) - 1)  # in turn, as far as they are there
            kind = list(kinds)[number] if export.process.poll() is None else "too late"
            kinds[kind] += 1
            about = f"round {round_}, {kind} after {moment_s:.2f} s"
            with contextlib.suppress(ProcessLookupError):
                os.kill(victims[number], signal.SIGKILL)
            status = export.process.wait(timeout=120)
            if kind != "too late":
                assert status in (-signal.SIGKILL, 2, 0), about
            assert export.survivors() == [], about
            if status == 2:
                said = export.said()
                assert said[-1].startswith("error: "), about
                assert "ended by SIGKILL" in said[-1], about
        if out.exists():
            Bundle.open(out, verify=True)
            shutil.rmtree(out)
        if round_ % 4 == 3:  # else all is found finished before long
            shutil.rmtree(toolchain.cache / "export", ignore_errors=True)
    done = toolchain(*command, "--json")
    assert done.status == 0, done.err
    assert all(record["passed"] for record in json.loads(done.out)["verification"])
    assert os.listdir(out.parent) == [out.name]
    assert not list((toolchain.cache / "export").iterdir())
    print(kinds)
