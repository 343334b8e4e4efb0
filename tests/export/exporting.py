"""Runs the command line's verbs of the toolchain, inside this process or outside of it."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lasting_launcher
import pytest
from lasting_launcher import LastingLauncher

from mvsdk import cli
from mvsdk_export.cli import COMMANDS
from mvsdk_export.jobs import runner

SIZE = ("--height", "32", "--width", "32")
STEPS = ("--steps", "1,2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command came to."""

    status: int
    out: str
    err: str


class _EntryPoint:
    value = "mvsdk_export.cli:COMMANDS"

    def load(self) -> object:
        return COMMANDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """The command line with a cache of its own, as if the distribution were installed."""

    cache: Path
    packages: Path
    """A folder for `sys.path` that says which verbs are installed."""
    keeps: bool = False
    """Whether exports leave what their jobs made to those after them."""

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Run a command in this process, which keeps a warm process from one to the next."""
        if self.keeps and arguments[0] == "export" and "--keep-intermediates" not in arguments:
            arguments = (*arguments, "--keep-intermediates")
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli, "entry_points", lambda group: [_EntryPoint()] if group else [])
            patch.setenv("MVSDK_CACHE", str(self.cache))
            if not lasting_launcher.is_replaced():
                patch.setattr(runner, "Launcher", LastingLauncher)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = cli.main([str(argument) for argument in arguments])
        return Outcome(status=status, out=out.getvalue(), err=err.getvalue())

    @contextlib.contextmanager
    def started(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """Start `python -m mvsdk` in a process of its own, which is ended at the latest here."""
        path = os.pathsep.join([str(self.packages), *filter(None, sys.path)])
        process = subprocess.Popen(
            [sys.executable, "-m", "mvsdk", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "MVSDK_CACHE": str(self.cache)},
            # A shell that runs us in the background has SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


def make_toolchain(folder: Path) -> Toolchain:
    """Return a toolchain with an empty cache."""
    info = folder / "packages" / "mobile_video_sdk_export-0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mobile-video-sdk-export\nVersion: 0.0\n"
    )
    entry_points = f"[mvsdk.commands]\ntoolchain = {_EntryPoint.value}\n"
    (info / "entry_points.txt").write_text(entry_points)
    return Toolchain(cache=folder / "cache", packages=info.parent)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Read what a process says up to the line that holds a text."""
    assert process.stderr is not None
    said: list[str] = []
    for line in iter(process.stderr.readline, ""):
        said.append(line)
        if text in line:
            return
    pytest.fail(f"{text!r} was never said: {said}")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a condition, at most until a process has ended."""
    while not condition():
        assert process.poll() is None, "the process ended first"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


def children_of(parent: int) -> list[int]:
    """Return the process ids of the children of a process (Linux)."""
    return [
        int(child)
        for tasks in Path(f"/proc/{parent}/task").glob("*/children")
        for child in tasks.read_text().split()
    ]


@contextlib.contextmanager
def ends(pid: int) -> Iterator[None]:
    """Check that what the block does makes a process end (Linux)."""
    descriptor = os.pidfd_open(pid)
    try:
        yield
        readable, _, _ = select.select([descriptor], [], [], 30.0)
        assert readable, f"process {pid} is still there"
    finally:
        os.close(descriptor)


def end(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """Send a signal; return the exit status."""
    process.send_signal(number)
    return process.wait()


def end_and_read(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; return the exit status and what was said from then on."""
    process.send_signal(number)
    assert process.stderr is not None
    said = process.stderr.read()
    return process.wait(), said
