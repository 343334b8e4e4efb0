"""Folders that know less than those of a disk: no work is lost there, and what is said is true."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_bundle_writer import MANIFEST, NEW, fill, kill_a_writer, refused, write

from mvsdk import Video
from mvsdk._text import quoted
from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.errors import OutputError

fcntl = pytest.importorskip("fcntl")

SUFFIXES = [".mp4", ".webp", ".gif", ".png", ".npy"]
NO_SYNC = [errno.EINVAL, errno.EIO, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES]


def _video() -> Video:
    return Video(frames=np.zeros((2, 16, 16, 3), np.uint8), fps=8.0, seed=0)


def _refuse(monkeypatch: pytest.MonkeyPatch, code: int, *, folders: bool) -> None:
    """Let the sync of folders, or that of files, fail."""
    fsync = os.fsync

    def partial(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", partial)


@pytest.mark.parametrize("code", NO_SYNC)
def test_folder_that_cannot_be_synced_loses_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _refuse(monkeypatch, code, folders=True)
    out = write(tmp_path / "a.mvbundle").path
    assert write(out, NEW, overwrite=True).replace_manifest(MANIFEST).manifest == MANIFEST
    assert os.listdir(tmp_path) == ["a.mvbundle"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folder_that_cannot_be_synced_loses_no_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    _refuse(monkeypatch, errno.EINVAL, folders=True)
    assert _video().save(tmp_path / f"clip{suffix}").stat().st_size > 0
    assert os.listdir(tmp_path) == [f"clip{suffix}"]


def test_file_that_cannot_be_synced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse(monkeypatch, errno.EIO, folders=False)
    with pytest.raises(OutputError, match="input/output error; nothing was kept"):
        _video().save(tmp_path / "clip.npy")
    assert "input/output error" in refused(lambda: write(tmp_path / "a.mvbundle"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fails", ["replace", "os.fsync", "unlink"])
def test_what_a_save_says_is_true_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "clip.npy"

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fails if "." in fails else f"pathlib.Path.{fails}", broken)
    try:
        _video().save(path)
        message = ""
    except OutputError as exc:
        message = str(exc)
    assert path.exists() == (message == "")
    if message:
        assert message.endswith("nothing was kept")
        assert os.listdir(tmp_path) == []


def test_part_that_cannot_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    monkeypatch.setattr(Path, "unlink", broken)
    with pytest.raises(OutputError) as caught:
        _video().save(tmp_path / "clip.npy")
    (left,) = tmp_path.iterdir()
    assert str(caught.value).endswith(f"; remove {quoted(left)}, which is left")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF])
def test_folder_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    out = write(tmp_path / "a.mvbundle").path
    assert write(out, NEW, overwrite=True).manifest == NEW
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def test_old_bundle_comes_back_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path / "a.mvbundle").path
    kill_a_writer(out, "swapping")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    BundleWriter(out, overwrite=True)
    assert not out.exists()  # the other may be between its two renames at this moment
    monkeypatch.setattr("mvsdk._staging._SWAP_MOST_S", 0.0)
    BundleWriter(out, overwrite=True)
    assert Bundle.open(out, verify=True).manifest == MANIFEST


def _renaming(monkeypatch: pytest.MonkeyPatch, refuses: Callable[[Path, Path], int | None]) -> None:
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        code = refuses(self, target)
        if code is not None:
            raise OSError(code, os.strerror(code))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)


def _is_open(folder: Path) -> bool:
    inode = folder.stat().st_ino
    opened = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return any(os.path.exists(path) and os.stat(path).st_ino == inode for path in opened)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="sees open files as Linux does")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EBUSY])
def test_server_that_renames_no_open_folder_gets_it_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    _renaming(monkeypatch, lambda source, _: code if _is_open(source) else None)
    out = write(tmp_path / "a.mvbundle").path
    assert write(out, NEW, overwrite=True).manifest == NEW
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def _lower_layer(source: Path, target: Path) -> int | None:
    return errno.EXDEV if target.name.endswith(".old") else None


def test_bundle_in_the_lower_layer_of_an_overlay_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path / "a.mvbundle").path
    _renaming(monkeypatch, _lower_layer)
    assert write(out, NEW, overwrite=True).manifest == NEW
    assert os.listdir(tmp_path) == ["a.mvbundle"]


@pytest.mark.parametrize("fails", ["shutil.copytree", "shutil.rmtree", "rename"])
def test_failure_in_an_overlay_keeps_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    out = write(tmp_path / "a.mvbundle").path
    _renaming(
        monkeypatch,
        lambda source, target: (
            errno.EIO
            if fails == "rename" and source.name.endswith(".partial")
            else _lower_layer(source, target)
        ),
    )
    if fails != "rename":
        _fail_once(monkeypatch, fails)
    assert "input/output error" in refused(lambda: write(out, NEW, overwrite=True))
    assert Bundle.open(out, verify=True).manifest == MANIFEST
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def _fail_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module, _, attribute = name.partition(".")
    real = getattr(__import__(module), attribute)
    failed: list[Any] = []

    def once(*args: Any, **options: Any) -> Any:
        if not failed:
            failed.append(args)
            raise OSError(errno.EIO, "Input/output error")
        return real(*args, **options)

    monkeypatch.setattr(name, once)


def test_swap_of_another_writer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path / "a.mvbundle").path
    descriptor = os.open(out, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    monkeypatch.setattr("time.sleep", lambda _: os.close(descriptor))
    assert write(out, NEW, overwrite=True).manifest == NEW


def test_place_of_a_mount_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path / "a.mvbundle").path
    (tmp_path / "clip.npy").touch()
    monkeypatch.setattr(os.path, "ismount", lambda _: True)
    message = refused(lambda: BundleWriter(out, overwrite=True))
    assert "where a disk or volume is mounted" in message
    with pytest.raises(OutputError, match="a file is mounted there; choose another name"):
        _video().save(tmp_path / "clip.npy")


def test_folder_that_holds_only_what_file_browsers_leave_counts_as_empty(tmp_path: Path) -> None:
    out = tmp_path / "a.mvbundle"
    out.mkdir()
    for name in (".DS_Store", "._a", "Thumbs.db", "desktop.ini"):
        (out / name).touch()
    assert write(out, overwrite=True).manifest == MANIFEST
    other = tmp_path / "repository"
    (other / ".git").mkdir(parents=True)
    assert "holds no manifest.json" in refused(lambda: BundleWriter(other, overwrite=True))


@pytest.mark.parametrize("name", [".DS_Store", ".nfs0000001", ".cache/huggingface/x", "Thumbs.db"])
def test_what_a_system_drops_into_a_bundle_in_the_making_stays_out_of_it(
    tmp_path: Path, name: str
) -> None:
    with BundleWriter(tmp_path / "a.mvbundle") as writer:
        fill(writer)
        for folder in (writer.directory, writer.directory / "components"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        bundle = writer.commit(MANIFEST)
    bundle.verify()
    assert bundle.ignored() == ()


@pytest.mark.parametrize("name", ["a\nb.mvbundle", "a\x7f", "m\udcfcll", "m\udcfcll/a.mvbundle"])
def test_name_that_no_bundle_can_have_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    assert "choose another name" in refused(lambda: BundleWriter(tmp_path / name))


@pytest.mark.parametrize("name", ["bücher 動画", "-dash", "it's $a", "line\nbreak/a"])
def test_names_of_every_other_kind_work(tmp_path: Path, name: str) -> None:
    bundle = write(tmp_path / f"{name}.mvbundle")
    Bundle.open(bundle.path, verify=True).check_path()
