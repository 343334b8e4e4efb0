"""Exports that are killed or interrupted: nothing half-written, and the next one goes on."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

pytest.importorskip("torch")

from exporting import (
    SIZE,
    STEPS,
    Toolchain,
    children_of,
    end,
    end_and_read,
    ends,
    make_toolchain,
    wait_for_line,
    wait_until,
)

from mvsdk_export.families import find_recipe

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watches processes as Linux does"),
]

FIRST = f"trace {find_recipe('sticker').components[0].name} for CPUs"


@contextmanager
def in_second_stage(toolchain: Toolchain, command: tuple[str | Path, ...]) -> Iterator[Popen[str]]:
    """Start an export and let it come to its second stage; check that its child ends with it."""
    with toolchain.started(*command) as process:
        wait_for_line(process, FIRST)  # it has ended
        wait_until(lambda: bool(children_of(process.pid)), process)
        (child,) = children_of(process.pid)
        with ends(child):
            yield process


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return where a bundle would be written, in a folder that does not exist yet."""
    return tmp_path / "bundles" / "a.mvbundle"


@pytest.fixture
def command(tiny_model_folder: Path, out: Path) -> tuple[str | Path, ...]:
    """Return the words of an export that is as short as an export can be."""
    what = ("export", "--target", "onnx", "--precision", "fp32", "--no-verify")
    return (*what, "--checkpoint", tiny_model_folder, *SIZE, *STEPS, "--out", out)


def test_export_after_a_killed_one_goes_on_and_clears_up(
    command: tuple[str | Path, ...], out: Path, tmp_path: Path
) -> None:
    toolchain = make_toolchain(tmp_path)
    with in_second_stage(toolchain, command) as process:
        assert end(process, signal.SIGKILL) == -signal.SIGKILL
    assert not out.exists()
    done = toolchain(*command, "--json")
    assert done.status == 0, done.err
    reused = [stage["name"] for stage in json.loads(done.out)["stages"] if stage["reused"]]
    assert FIRST in reused
    assert len(reused) < 5
    assert os.listdir(out.parent) == [out.name]
    assert not list((toolchain.cache / "export").iterdir())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_export_keeps_finished_stages_and_nothing_else(
    command: tuple[str | Path, ...],
    out: Path,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
) -> None:
    toolchain = make_toolchain(tmp_path)
    with in_second_stage(toolchain, command) as process:
        ended_as, said = end_and_read(process, number)
        assert ended_as == status
    assert re.search(
        r"stopped (in|after) stage \d of 9, [\w ]+; \d finished stages? (is|are) kept", said
    )
    assert "the same command goes on from there" in said
    assert not out.parent.exists()
    kept = [path.name.split("-")[0] for path in (toolchain.cache / "export").iterdir()]
    assert kept
    assert set(kept) <= {"TraceOnnx", "FinishOnnx"}
