"""What an export says of its progress, its past and its interruptions."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from exporting import SIZE, STEPS, Toolchain, make_toolchain

from mvsdk_export.commands import bar
from mvsdk_export.jobs.history import FILE

pytestmark = pytest.mark.torch


@pytest.fixture
def command(tiny_model_folder: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """Return the words of an export that calibrates and verifies."""
    what = ("export", "--target", "onnx", "--precision", "w8a16", "--overwrite")
    return (*what, "--checkpoint", tiny_model_folder, *SIZE, *STEPS, "--out", tmp_path / "a")


def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a line about every stage that takes more than a moment."""
    monkeypatch.setattr(bar, "REDRAW_S", 0.01)
    monkeypatch.setattr(bar, "LINE_S", 0.02)


def test_help_says_how_long_an_export_takes(toolchain: Toolchain) -> None:
    lines = toolchain("export", "--help").out.splitlines()
    assert re.search(r"onnx \d+ min, snapdragon \d+, all \d+", lines[2])
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_export_says_what_it_counts_what_it_finds_and_what_it_took_before(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str | Path, ...], tmp_path: Path
) -> None:
    often(monkeypatch)
    toolchain = make_toolchain(tmp_path)
    first = toolchain(*command, "--keep-intermediates")
    assert first.status == 0, first.err
    ended = re.findall(r"^\[(\d+)/(\d+)\] ([^:]*): \d+\.\d s$", first.err, re.MULTILINE)
    count = len(ended)
    assert [(int(number), int(of)) for number, of, _ in ended] == [
        (number, count) for number in range(1, count + 1)
    ]
    assert {"calibrate", "run the reference"} <= {name for _, _, name in ended}
    assert re.search(r"calibrate: goes on, .* of 64 clips$", first.err, re.MULTILINE)
    assert re.search(r"verify onnx-w8a16: goes on, .* of \d+ (calls|clips)", first.err)
    assert "about" not in first.err
    assert "found finished" not in first.out + first.err

    history = toolchain.cache / FILE
    known = json.loads(history.read_text())
    assert len(known) == count
    history.write_text(json.dumps({name: 100 * seconds for name, seconds in known.items()}))
    shutil.rmtree(next((toolchain.cache / "export").glob("RecordActivations-*")))
    again = toolchain(*command)
    assert f"\n{count - 2} of {count - 1} stages found finished from an earlier run\n" in again.out
    assert re.search(r"^\[\d/\d+\] trace text_encoder: found finished$", again.err, re.MULTILINE)
    one_of_two = r"(calibrate|run the reference): goes on, .*, about \d+ \w+ left$"
    assert re.search(one_of_two, again.err, re.MULTILINE)


@pytest.mark.exhaustive
def test_verification_tells_its_progress_as_an_export_does(
    monkeypatch: pytest.MonkeyPatch, toolchain: Toolchain, command: tuple[str | Path, ...]
) -> None:
    often(monkeypatch)
    bundle, folder = command[-1], command[command.index("--checkpoint") + 1]
    assert toolchain(*command, "--no-verify").status == 0
    done = toolchain("verify", bundle, "--checkpoint", folder)
    assert done.status == 0, done.err
    assert re.search(r"^\[1/2\] run the reference: goes on, .* of 8 clips", done.err, re.MULTILINE)
    assert re.search(r"^\[2/2\] verify onnx-w8a16: \d+\.\d s$", done.err, re.MULTILINE)
