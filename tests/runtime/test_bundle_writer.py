"""Bundles appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mvsdk import _staging
from mvsdk._text import quoted
from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.errors import BundleError, MvsdkError, OutputError
from mvsdk.manifest import Manifest

ROOT = Path(__file__).parents[2]
MANIFEST = Manifest.from_json(
    (ROOT / "tests/golden/manifests/upgraded_2_text_to_video.json").read_bytes()
)
NEW = replace(MANIFEST, name="newer")


def fill(writer: BundleWriter) -> None:
    for ref in MANIFEST.files():
        path = writer.directory / ref.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ref.path)
        writer.add_file(ref.path)


def write(out: Path, manifest: Manifest = MANIFEST, *, overwrite: bool = False) -> Bundle:
    with BundleWriter(out, overwrite=overwrite) as writer:
        fill(writer)
        return writer.commit(manifest)


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refused(action: Callable[[], object], kind: type[MvsdkError] = OutputError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_commit_leaves_the_bundle_and_nothing_else(tmp_path: Path) -> None:
    bundle = write(tmp_path / "deep" / "er" / "a.mvbundle")
    assert bundle.manifest == MANIFEST
    assert os.listdir(tmp_path) == ["deep"]
    assert os.listdir(tmp_path / "deep/er") == ["a.mvbundle"]
    files = [name for name in everything(bundle.path) if (bundle.path / name).is_file()]
    assert files == sorted(["manifest.json", *(ref.path for ref in MANIFEST.files())])


def test_nothing_is_at_the_output_before_the_commit(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a.mvbundle") as writer:
        fill(writer)
        assert not (tmp_path / "a.mvbundle").exists()
        assert writer.directory.parent == tmp_path
        assert writer.directory.name.startswith(".")


def test_manifest_is_replaced_over_the_same_files(tmp_path: Path) -> None:
    bundle = write(tmp_path / "a.mvbundle")
    before = everything(bundle.path)
    assert bundle.replace_manifest(NEW).manifest == NEW
    assert Bundle.open(bundle.path, verify=True).manifest == NEW
    assert everything(bundle.path) == before


def test_manifest_of_other_files_is_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path / "a.mvbundle")
    tokenizer = MANIFEST.tokenizers["main"]
    vocabulary = replace(tokenizer.file, bytes=tokenizer.file.bytes + 1)
    other = replace(MANIFEST, tokenizers={"main": replace(tokenizer, file=vocabulary)})
    assert "lists other files" in refused(lambda: bundle.replace_manifest(other), BundleError)
    assert Bundle.open(bundle.path).manifest == MANIFEST


def test_leaving_without_commit_leaves_no_trace(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "new" / "a.mvbundle") as writer:
        fill(writer)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_exception_leaves_no_trace(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with BundleWriter(tmp_path / "new" / "a.mvbundle") as writer:
            fill(writer)
            raise error

    with pytest.raises(error):
        interrupted()
    assert everything(tmp_path) == []


def test_existing_output_is_refused_before_any_work(tmp_path: Path) -> None:
    out = write(tmp_path / "a.mvbundle").path
    before = everything(tmp_path)
    message = refused(lambda: BundleWriter(out))
    assert "exists; add --overwrite or choose another output" in message
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert "exists" in refused(lambda: BundleWriter(tmp_path / "empty"))
    assert "exists" in refused(lambda: BundleWriter(tmp_path / "dangling"))
    assert everything(tmp_path) == sorted([*before, "dangling", "empty"])


def test_overwrite_replaces_a_bundle(tmp_path: Path) -> None:
    out = write(tmp_path / "a.mvbundle").path
    (out / "stale").write_text("of the old bundle")
    assert write(out, NEW, overwrite=True).manifest.name == "newer"
    assert not (out / "stale").exists()
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def test_overwrite_keeps_the_old_bundle_until_the_commit(tmp_path: Path) -> None:
    out = write(tmp_path / "a.mvbundle").path
    with BundleWriter(out, overwrite=True) as writer:
        fill(writer)
        assert Bundle.open(out, verify=True).manifest.name == "sticker"
    assert Bundle.open(out, verify=True).manifest.name == "sticker"
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def test_overwrite_replaces_nothing_but_bundles(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("dear")
    (tmp_path / "file").write_text("dear")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    assert "holds no manifest.json" in refused(
        lambda: BundleWriter(tmp_path / "photos", overwrite=True)
    )
    for name in ("file", "link"):
        message = refused(lambda name=name: BundleWriter(tmp_path / name, overwrite=True))
        assert "is not a folder, so it is not overwritten" in message
    assert (tmp_path / "photos" / "cat.png").read_text() == "dear"
    write(tmp_path / "empty", overwrite=True)


@pytest.mark.parametrize("out", ["", ".", "/", "..", "a/..", "nul\0byte"])
def test_output_that_names_no_folder_is_refused(out: str) -> None:
    assert "is no name for an output folder" in refused(lambda: BundleWriter(out))


def test_output_under_a_file_is_refused_without_trace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused(lambda: write(tmp_path / "file" / "sub" / "a.mvbundle"))
    assert "not a directory" in message
    assert everything(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left on device; free some space"),
        (errno.EDQUOT, "disk quota exceeded; free some space"),
        (errno.EACCES, "permission denied; choose a folder that you may write to"),
        (errno.EROFS, "read-only file system; choose a folder that you may write to"),
        (errno.EIO, "input/output error; choose another output"),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "write_bytes", "rename", "os.fsync", "shutil.copyfile"])
def test_system_refusal_at_any_point_is_one_line_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "vocab").write_text("tokenizer/vocab.json")
    out = tmp_path / "out" / "new" / "a.mvbundle"

    def attempt() -> None:
        with BundleWriter(out) as writer:
            fill(writer)
            monkeypatch.setattr(call if "." in call else f"pathlib.Path.{call}", fails)
            writer.add_file("tokenizer/vocab.json", source=tmp_path / "vocab")
            writer.commit(MANIFEST)

    message = refused(attempt)
    monkeypatch.undo()
    assert message.startswith(f"cannot write {quoted(out)}: {words}")
    assert everything(tmp_path) == ["vocab"]


def test_unwritable_folder_is_refused_on_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    assert "permission denied; choose a folder" in refused(lambda: write(tmp_path / "a"))
    assert everything(tmp_path) == []


def test_disk_that_fills_while_the_caller_writes_is_one_line(tmp_path: Path) -> None:
    def attempt() -> None:
        with BundleWriter(tmp_path / "a.mvbundle") as writer:
            fill(writer)
            raise OSError(errno.ENOSPC, "No space left on device")

    assert "no space left on device; free some space" in refused(attempt)
    assert everything(tmp_path) == []


def test_failed_swap_puts_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path / "a.mvbundle").path
    rename = Path.rename

    def second_fails(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    assert "input/output error" in refused(lambda: write(out, NEW, overwrite=True))
    assert Bundle.open(out, verify=True).manifest.name == "sticker"
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def test_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    def attempt() -> None:
        with BundleWriter(tmp_path / "a") as writer:
            fill(writer)
            write(tmp_path / "a", NEW)
            writer.commit(MANIFEST)

    assert "exists" in refused(attempt)
    assert Bundle.open(tmp_path / "a", verify=True).manifest.name == "newer"
    assert os.listdir(tmp_path) == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
from mvsdk import _staging
from mvsdk.bundle import BundleWriter
sys.path.insert(0, "tests/runtime")
from test_bundle_writer import NEW, fill
out, moment = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename
def killed(self, target):
    if self.name.endswith(".partial"):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killed
with BundleWriter(out, overwrite=True) as writer:
    fill(writer)
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    writer.commit(NEW)
"""


def kill_a_writer(out: Path, moment: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(out), moment],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    kill_a_writer(tmp_path / "a.mvbundle", "writing")
    assert len(os.listdir(tmp_path)) == 1
    other = tmp_path / ".a.mvbundle.keep"
    other.mkdir()
    write(tmp_path / "a.mvbundle")
    assert sorted(os.listdir(tmp_path)) == [other.name, "a.mvbundle"]


def test_writer_killed_between_the_renames_of_a_swap_loses_nothing(tmp_path: Path) -> None:
    out = write(tmp_path / "a.mvbundle").path
    kill_a_writer(out, "swapping")
    assert not out.exists()
    assert len(os.listdir(tmp_path)) == 2
    assert "exists" in refused(lambda: BundleWriter(out))
    assert Bundle.open(out, verify=True).manifest.name == "sticker"
    assert write(out, NEW, overwrite=True).manifest.name == "newer"
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def test_folder_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a") as first:
        fill(first)
        with BundleWriter(tmp_path / "a") as second:
            assert first.directory != second.directory
        assert first.commit(MANIFEST).manifest == MANIFEST
    assert os.listdir(tmp_path) == ["a"]


def test_hidden_folder_that_another_writer_removes_at_once_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock_folder = _staging.lock_folder
    taken: list[Path] = []

    def removed_first(path: Path) -> int | None:
        if len(taken) < 2:  # once before the lock, once while the other holds it
            taken.append(path)
            path.rmdir()
            if len(taken) == 2:
                raise BlockingIOError
        return lock_folder(path)

    monkeypatch.setattr(_staging, "lock_folder", removed_first)
    write(tmp_path / "a.mvbundle")
    assert len(taken) == 2
    assert os.listdir(tmp_path) == ["a.mvbundle"]


def test_bundle_can_be_opened_before_it_has_its_name(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a") as writer:
        fill(writer)
        hidden = writer.preview(MANIFEST)
        hidden.verify()
        assert not (tmp_path / "a").exists()
        assert writer.commit(NEW).manifest == NEW
    assert os.listdir(tmp_path) == ["a"]


def test_commit_refuses_files_that_the_manifest_does_not_say(tmp_path: Path) -> None:
    def stray() -> None:
        with BundleWriter(tmp_path / "a") as writer:
            fill(writer)
            (writer.directory / "calibration.npy").write_text("intermediate")
            writer.commit(MANIFEST)

    def absent() -> None:
        with BundleWriter(tmp_path / "a") as writer:
            writer.commit(MANIFEST)

    def linked() -> None:
        with BundleWriter(tmp_path / "a") as writer:
            fill(writer)
            path = writer.directory / "tokenizer/vocab.json"
            path.unlink()
            path.symlink_to(writer.directory / "licences/MIT.txt")
            writer.commit(MANIFEST)

    assert "does not list: calibration.npy" in refused(stray, BundleError)
    assert "which was not added as it says" in refused(absent, BundleError)
    assert "holds a link: vocab.json" in refused(linked, BundleError)
    assert everything(tmp_path) == []


def test_commit_refuses_a_manifest_that_no_reader_would_take(tmp_path: Path) -> None:
    sampler = replace(MANIFEST.samplers["main"], default_steps=3)
    broken = replace(MANIFEST, samplers={"main": sampler})
    assert "default_steps is 3" in refused(lambda: write(tmp_path / "a", broken), BundleError)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("path", ["../a", "/a", "a\\b", "", "a b", "manifest.json", "absent"])
def test_add_file_refuses_what_cannot_be_in_a_bundle(tmp_path: Path, path: str) -> None:
    def attempt() -> None:
        with BundleWriter(tmp_path / "a") as writer:
            writer.add_file(path)

    message = refused(attempt, BundleError)
    assert "is missing" in message or "is not a path for a bundle" in message


def test_add_file_refuses_a_source_that_is_not_a_file(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing", tmp_path):
        with BundleWriter(tmp_path / "a") as writer:
            words = refused(lambda w=writer, s=source: w.add_file("a.bin", source=s), BundleError)
        assert "is not a file to copy into the bundle" in words


def test_add_file_copies_a_source_and_describes_it(tmp_path: Path) -> None:
    (tmp_path / "vocab").write_text("tokenizer/vocab.json")
    with BundleWriter(tmp_path / "a") as writer:
        ref = writer.add_file("tokenizer/vocab.json", source=tmp_path / "vocab")
        assert ref == MANIFEST.tokenizers["main"].file
        assert (writer.directory / "tokenizer/vocab.json").read_text() == "tokenizer/vocab.json"
