"""Exports that are ended from outside: nothing that they started goes on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("resource")

from marked_processes import Marked, needs_proc

pytestmark = needs_proc

RUN = """
import signal, sys
from pathlib import Path
from mvsdk_export.jobs.runner import JobRunner
from probe_jobs import Crowd

class Asked(BaseException):
    pass

def end(*_):
    raise Asked

signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
print("begins", flush=True)
try:
    with JobRunner(Path(sys.argv[1]), slots=2) as runner:
        runner.run([Crowd(name="one", word="crowded"), Crowd(name="two", word="crowded too")])
except Asked:
    print("asked", flush=True)
    sys.exit(143)
"""


class Export:
    """A process that runs one stage, which starts others, and all that come of it."""

    def __init__(self, cache: Path) -> None:
        self.cache, self._marked = cache, Marked()
        path = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(cache)],
            stdout=subprocess.PIPE,
            env={**self._marked.environment, "PYTHONPATH": path},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"begins\n"

    def alive(self) -> list[int]:
        """Return the process ids of all that were started, and have not ended."""
        return self._marked.alive()

    def survivors(self) -> list[int]:
        """Wait for all to end; return those that have not."""
        return self._marked.survivors()

    def kill(self) -> None:
        """End all of it."""
        self.process.kill()
        self.process.communicate()
        self._marked.kill()

    def wait_for_crowd(self) -> None:
        """Wait until the stage has started all that it starts."""
        deadline = time.monotonic() + 60
        while len(self._crowded()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _crowded(self) -> list[Path]:
        logs = self.cache.glob(".*.partial/log.txt")
        return [log for log in logs if b"crowded" in log.read_bytes()]


@contextlib.contextmanager
def exporting(cache: Path) -> Iterator[Export]:
    export = Export(cache)
    try:
        yield export
    finally:
        export.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_whatever_jobs_started_ends_with_the_export(tmp_path: Path, number: signal.Signals) -> None:
    with exporting(tmp_path / "cache") as export:
        export.wait_for_crowd()
        # the export, what forks, and twice: a job, who watches, and those started
        assert len(export.alive()) >= 2 + 2 * (2 + 2)
        export.process.send_signal(number)
        assert export.survivors() == []
        assert export.process.wait() in (-number, 143, 1, -signal.SIGINT)


def test_nothing_survives_an_export_that_is_killed_at_any_moment(tmp_path: Path) -> None:
    moments = random.Random(5)
    for round_ in range(16):
        with exporting(tmp_path / f"cache{round_}") as export:
            moment_s = moments.uniform(0.0, 0.6)
            time.sleep(moment_s)
            export.process.kill()
            assert export.survivors() == [], f"killed after {moment_s:.3f} s"


def test_nothing_survives_when_export_and_warm_process_are_killed_together(
    tmp_path: Path,
) -> None:
    with exporting(tmp_path / "cache") as export:
        export.wait_for_crowd()
        warm = _child_of(export.process.pid)
        os.kill(warm, signal.SIGSTOP)
        export.process.kill()
        os.kill(warm, signal.SIGKILL)
        assert export.survivors() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_warm_process_ends_with_the_export_while_it_imports(
    tmp_path: Path, number: signal.Signals
) -> None:
    """An import takes seconds; this one would take a minute."""
    begun = tmp_path / "begun"
    (tmp_path / "slow_to_import.py").write_text(
        f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)"
    )
    marked = Marked()
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    program = (
        "import time; from mvsdk_export.jobs.process import Launcher; launcher = Launcher();"
        "launcher.warm_up(['slow_to_import']); time.sleep(60)"
    )
    environment = {**marked.environment, "PYTHONPATH": path}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        process.wait()
    assert marked.survivors() == []


def test_second_request_to_end_does_not_leave_the_first_half_done(tmp_path: Path) -> None:
    for pause_s in (0.0, 0.001, 0.003, 0.01):
        with exporting(tmp_path / "cache") as export:
            export.wait_for_crowd()
            for _ in range(3):
                with contextlib.suppress(ProcessLookupError):
                    export.process.send_signal(signal.SIGTERM)
                time.sleep(pause_s)
            assert export.survivors() == []
            assert export.process.wait() in (143, 1, -signal.SIGTERM)
            assert list(tmp_path.glob("cache/*")) == []


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_job_that_dies_ends_the_other_and_what_both_left_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    with exporting(tmp_path / "cache") as export:
        export.wait_for_crowd()
        jobs = _children_of(_child_of(export.process.pid))
        assert len(jobs) == 2
        os.kill(jobs[0], number)
        assert export.process.wait() == 1
        assert export.survivors() == []
        assert list(tmp_path.glob("cache/*")) == []


def test_warm_process_that_dies_takes_its_jobs_with_it(tmp_path: Path) -> None:
    with exporting(tmp_path / "cache") as export:
        export.wait_for_crowd()
        os.kill(_child_of(export.process.pid), signal.SIGKILL)
        assert export.process.wait() == 1
        assert export.survivors() == []
        assert list(tmp_path.glob("cache/*")) == []


def _child_of(parent: int) -> int:
    (child,) = _children_of(parent)
    return child


def _children_of(parent: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        found += map(int, path.read_text().split())
    return found
