"""Exports that are ended from outside: nothing that they started goes on."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("resource")

from probe_stages import probes_in

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="finds processes as Linux lets it"
)

MARK = "MVSDK_TEST_MARK"
RUN = """
import signal, sys
from pathlib import Path
from mvsdk_export.jobs.runner import StageRunner

class Asked(BaseException):
    pass

def end(*_):
    raise Asked

signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
print("begins", flush=True)
try:
    StageRunner(Path(sys.argv[1])).run("try it", "crowd", {})
except Asked:
    print("asked", flush=True)
    sys.exit(143)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with which Python knows stages of tests."""
    return probes_in(tmp_path / "site")


class Export:
    """A process that runs one stage, which starts others, and all that come of it."""

    def __init__(self, cache: Path, site: Path) -> None:
        self.cache, self._mark = cache, secrets.token_hex(8)
        path = os.pathsep.join([str(site), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(cache)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, MARK: self._mark},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"begins\n"

    def alive(self) -> list[int]:
        """Return the process ids of all that were started, and have not ended."""
        mark, found = f"{MARK}={self._mark}".encode(), []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes():
                    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                    found += [int(folder.name)] if state not in "ZX" else []
        return found

    def survivors(self, seconds: float = 2.0) -> list[int]:
        """Wait for all to end; return those that have not."""
        deadline = time.monotonic() + seconds
        while (found := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def wait_for_crowd(self) -> None:
        """Wait until the stage has started all that it starts."""
        deadline = time.monotonic() + 60
        while not any(b"crowded" in x.read_bytes() for x in self.cache.glob(".*.partial/log.txt")):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextlib.contextmanager
def exporting(cache: Path, site: Path) -> Iterator[Export]:
    export = Export(cache, site)
    try:
        yield export
    finally:
        export.process.kill()
        export.process.communicate()
        for pid in export.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_whatever_a_stage_started_ends_with_the_export(
    tmp_path: Path, site: Path, number: signal.Signals
) -> None:
    with exporting(tmp_path / "cache", site) as export:
        export.wait_for_crowd()
        assert len(export.alive()) >= 5  # the export, its stage, who watches, and those started
        export.process.send_signal(number)
        assert export.survivors() == []
        assert export.process.wait() in (-number, 143, 1, -signal.SIGINT)


def test_nothing_survives_an_export_that_is_killed_at_any_moment(
    tmp_path: Path, site: Path
) -> None:
    moments = random.Random(5)
    for round_ in range(16):
        with exporting(tmp_path / f"cache{round_}", site) as export:
            moment_s = moments.uniform(0.0, 0.5)
            time.sleep(moment_s)
            export.process.kill()
            assert export.survivors() == [], f"killed after {moment_s:.3f} s"


def test_second_request_to_end_does_not_leave_the_first_half_done(
    tmp_path: Path, site: Path
) -> None:
    for pause_s in (0.0, 0.001, 0.003, 0.01):
        with exporting(tmp_path / "cache", site) as export:
            export.wait_for_crowd()
            for _ in range(3):
                with contextlib.suppress(ProcessLookupError):
                    export.process.send_signal(signal.SIGTERM)
                time.sleep(pause_s)
            assert export.survivors() == []
            assert export.process.wait() in (143, 1, -signal.SIGTERM)
            assert list(tmp_path.glob("cache/*")) == []


def test_stage_that_ends_takes_with_it_what_it_left_running(tmp_path: Path, site: Path) -> None:
    with exporting(tmp_path / "cache", site) as export:
        export.wait_for_crowd()
        stage = _child_of(export.process.pid)
        os.kill(stage, signal.SIGSEGV)
        assert export.process.wait() == 1
        assert export.survivors() == []


def _child_of(parent: int) -> int:
    (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(child)
