"""Parts of dead writers are removed by the next one in the folder, those of living ones kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mvsdk import Video
from mvsdk._leftovers import ABANDONED_AFTER_S, is_debris, is_hidden, part_name

WRITER = """
import os, sys, time
from mvsdk._staging import replacing
from pathlib import Path
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    time.sleep(60)
"""
OLD_S = ABANDONED_AFTER_S + 60


def _save(folder: Path) -> None:
    Video(frames=np.zeros((1, 2, 2, 3), np.uint8), fps=8.0, seed=0).save(folder / "next.npy")
    (folder / "next.npy").unlink()


def _aged(path: Path, seconds: float) -> Path:
    path.touch()
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def _dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


@pytest.mark.skipif(os.name != "posix", reason="asks for a process as POSIX does")
def test_part_of_a_writer_is_removed_once_it_is_dead(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "clip.npy")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        _save(tmp_path)
        assert os.listdir(tmp_path) == [name]  # it lives
        process.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == [name]
    _save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_part_of_another_host_is_removed_when_nobody_wrote_to_it_for_a_day(tmp_path: Path) -> None:
    """A PID of another host says nothing here, and a lock may not reach across a share."""
    fresh = _aged(tmp_path / f".mvsdk-{_dead_pid()}-{'0' * 16}.part", 3600)
    stale = _aged(tmp_path / f".mvsdk-{os.getpid()}-{'0' * 15}1.part", OLD_S)
    before = _aged(tmp_path / ".mvsdk-99999-01234567.part", OLD_S)  # of earlier versions
    _save(tmp_path)
    assert fresh.exists()
    assert not stale.exists()
    assert not before.exists()


@pytest.mark.parametrize(
    "name",
    [
        "mvsdk-1-0123456789abcdef.part",
        ".mvsdk-1-0123456789abcdeg.part",
        ".mvsdk-1-0123456789abcdef.part.bak",
        ".mvsdk-x-0123456789abcdef.part",
        ".mvsdk-12345678901-0123456789abcdef.part",
        ".mvsdk-1-0123.part",
        "clip.part",
    ],
)
def test_names_of_other_forms_are_nobody_s_parts(tmp_path: Path, name: str) -> None:
    kept = _aged(tmp_path / name, OLD_S)
    _save(tmp_path)
    assert kept.exists()


def test_what_is_no_regular_file_of_ours_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dear = _aged(tmp_path / "dear", OLD_S)
    link = tmp_path / f".mvsdk-1-{'0' * 16}.part"
    link.symlink_to(dear)
    folder = tmp_path / f".mvsdk-1-{'1' * 16}.part"
    folder.mkdir()
    os.utime(folder, (0, 0))
    _save(tmp_path)
    assert link.is_symlink()
    assert folder.is_dir()
    theirs = _aged(tmp_path / f".mvsdk-1-{'2' * 16}.part", OLD_S)
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1, raising=False)
    _save(tmp_path)
    assert theirs.exists()
    assert dear.exists()


def test_part_names_differ_and_name_this_process() -> None:
    first, second = part_name(), part_name()
    assert first != second
    assert first.split("-")[1] == str(os.getpid())


def test_hidden_is_more_than_debris() -> None:
    for name in (".DS_Store", "._a", "._.DS_Store", "THUMBS.DB", "desktop.ini"):
        assert is_debris(name)
        assert is_hidden(name)
    for name in (".git", ".cache", ".nfs01", ".directory"):
        assert not is_debris(name)
        assert is_hidden(name)
    assert not is_hidden("model.onnx")
