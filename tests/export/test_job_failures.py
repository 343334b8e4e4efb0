"""Jobs that fail: a full disk, a crash, an error of their own, each in one line."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("resource")

from probe_jobs import (
    Abort,
    Count,
    EndEarly,
    Fill,
    FillLog,
    Outgrow,
    PrintAnError,
    Probe,
    RaiseAnError,
)

from mvsdk import _staging
from mvsdk.errors import MvsdkError, OutputError
from mvsdk_export.errors import CheckpointError, ExportError, UnsupportedOpError
from mvsdk_export.jobs.process import Launcher, name_signal
from mvsdk_export.jobs.runner import JobRunner

FULL = r"^try it failed: no space left in '{}'; set MVSDK_CACHE to a folder on a larger disk$"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=40", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def failure(cache: Path, job: Probe, *, warm: bool = True) -> MvsdkError:
    """Run a job that fails; nothing of it is left."""
    launcher = Launcher(warm=warm)
    with pytest.raises(MvsdkError) as caught, JobRunner(cache, launcher=launcher) as runner:
        runner.run([job])
    assert not cache.exists() or not list(cache.iterdir())
    assert "\n" not in str(caught.value)
    return caught.value


# --- disks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", ["plain", "numpy", "temporary", "swallowed", "reworded", "unnoticed", "native"]
)
def test_full_disk_is_named_with_what_to_do_however_it_is_noticed(
    small_disk: Path, way: str
) -> None:
    error = failure(small_disk / "cache", Fill(way=way))
    assert isinstance(error, OutputError)
    assert str(error) == FULL.format(small_disk / "cache").strip("^$")


def test_disk_that_the_log_fills_is_named(small_disk: Path) -> None:
    error = failure(small_disk / "cache", FillLog())
    assert str(error) == FULL.format(small_disk / "cache").strip("^$")


def test_disk_without_room_for_another_folder_is_named(small_disk: Path) -> None:
    for number in range(40):
        try:
            (small_disk / str(number)).touch()
        except OSError:
            break
    error = failure(small_disk / "cache", Count(clips=1))
    assert str(error) == FULL.format(small_disk / "cache").strip("^$")


def test_file_that_becomes_too_large_is_no_fault_of_ours(tmp_path: Path) -> None:
    error = failure(tmp_path / "cache", Outgrow())
    assert isinstance(error, OutputError)
    assert "a file became too large in" in str(error)
    assert "raise ulimit -f" in str(error)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left in '{}'; set MVSDK_CACHE to a folder on a larger disk"),
        (errno.EDQUOT, "disk quota exceeded in '{}'; set MVSDK_CACHE to a folder on a larger disk"),
        (errno.EACCES, "'{}': permission denied; set MVSDK_CACHE to a folder that you may write"),
        (errno.EIO, "'{}': input/output error; set MVSDK_CACHE to a folder on another disk"),
        (errno.ENOTDIR, "'{}': not a directory; set MVSDK_CACHE to a folder that can be made"),
    ],
)
@pytest.mark.parametrize("place", ["_make_parents", "sync_tree"])
def test_cache_that_cannot_be_written_is_named_before_and_after_a_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, number: int, message: str
) -> None:
    def refuse(_: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    owner = _staging.StagingFolder if place == "_make_parents" else _staging
    monkeypatch.setattr(owner, place, refuse)
    error = failure(tmp_path / "cache", Count(clips=1))
    assert isinstance(error, OutputError)
    assert message.format(tmp_path / "cache") in str(error)


def test_stage_leaves_no_temporary_files_with_what_it_made(tmp_path: Path) -> None:
    job = Count(clips=1)
    with JobRunner(tmp_path) as runner:
        runner.run([job])
        made = runner[job]
    assert sorted(path.name for path in made.folder.iterdir()) == ["log.txt", "result.json"]


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("captured", [False, True])
def test_crash_of_a_library_ends_with_its_last_words(tmp_path: Path, captured: bool) -> None:
    error = failure(tmp_path / "cache", Abort(captured=captured))
    assert type(error) is ExportError
    assert str(error) == (
        "try it failed: its process was ended by SIGABRT, its last words: "
        "terminate called; what():  graph 7 has no input"
    )
    assert "something before" in error.__notes__[0]


def test_line_that_a_library_prints_is_no_error_of_ours(tmp_path: Path) -> None:
    error = failure(tmp_path / "cache", PrintAnError())
    assert (type(error), str(error)) == (UnsupportedOpError, "try it failed: the reason")


@pytest.mark.parametrize(
    ("kind", "found", "message"),
    [
        ("CheckpointError", CheckpointError, "try it failed: "),
        ("OSError", ExportError, "try it failed: OSError"),
        ("MemoryError", ExportError, "try it failed: MemoryError; if memory was short, export one"),
    ],
)
def test_error_of_a_stage_keeps_its_class_where_it_is_one_of_ours(
    tmp_path: Path, kind: str, found: type[MvsdkError], message: str
) -> None:
    error = failure(tmp_path / "cache", RaiseAnError(kind=kind))
    assert type(error) is found
    assert str(error).startswith(message)


def test_process_that_ends_well_without_a_result_is_a_failure(tmp_path: Path) -> None:
    error = failure(tmp_path / "cache", EndEarly())
    assert str(error) == "try it failed: its process ended without a result"


def test_no_process_to_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("mvsdk_export.jobs.process.subprocess.Popen", refuse)
    error = failure(tmp_path / "cache", Count(clips=1))
    assert "no process can be started for try it: resource temporarily unavailable" in str(error)


@pytest.mark.parametrize(("number", "name"), [(6, "SIGABRT"), (40, "signal 40")])
def test_signals_without_a_name_go_by_their_number(number: int, name: str) -> None:
    assert name_signal(number) == name
