"""Commands that install what is missing: those of the way in which this copy was installed."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path

import pytest

from mvsdk import _installed
from mvsdk._installed import (
    RUNTIME,
    TOOLCHAIN,
    pip_install,
    toolchain_install,
    upgrade_advice,
)

VERSION = "0.1.0"
Sources = dict[str, object]


class _Distribution:
    """An installed distribution, with PEP 610's record of where it came from."""

    def __init__(self, source: object) -> None:
        self.version = VERSION
        self._source = source

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._source is None else json.dumps(self._source)


def _install(monkeypatch: pytest.MonkeyPatch, sources: Sources) -> None:
    def find(name: str) -> _Distribution:
        if name == "pip":
            return _Distribution(None)
        if name not in sources:
            raise importlib.metadata.PackageNotFoundError(name)
        return _Distribution(sources[name])

    monkeypatch.setattr(importlib.metadata, "distribution", find)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: find(name).version)


@pytest.fixture(autouse=True)
def _pip_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment be an activated one."""
    monkeypatch.setattr("shutil.which", lambda name: str(Path(sys.executable).with_name(name)))


def _wheel(folder: str, distribution: str) -> Sources:
    name = f"{distribution.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    return {"url": f"file://{folder}/{name}", "archive_info": {}}


def _folder(path: str, *, editable: bool) -> Sources:
    return {"url": f"file://{path}", "dir_info": {"editable": editable}}


@pytest.mark.parametrize(
    ("sources", "command"),
    [
        ({RUNTIME: None}, ["mobile-video-sdk[apple]"]),
        ({RUNTIME: None, TOOLCHAIN: None}, ["mobile-video-sdk[apple]"]),
        ({RUNTIME: _folder("/c/my sdk", editable=True)}, ["-e", "/c/my sdk/export[apple]"]),
        ({RUNTIME: _folder("/c/my%20sdk", editable=False)}, ["/c/my sdk/export[apple]"]),
        ({TOOLCHAIN: _folder("/c/export", editable=True)}, ["-e", "/c/export[apple]"]),
        (
            {RUNTIME: _wheel("/w", RUNTIME)},
            [f"/w/mobile_video_sdk_export-{VERSION}-py3-none-any.whl[apple]"],
        ),
        (
            {RUNTIME: _wheel("/w", RUNTIME), TOOLCHAIN: _wheel("/v", TOOLCHAIN)},
            [f"/v/mobile_video_sdk_export-{VERSION}-py3-none-any.whl[apple]"],
        ),
        (
            {RUNTIME: {"url": "https://a.example/b", "vcs_info": {"commit_id": "5e1f"}}},
            ["mobile-video-sdk-export[apple] @ git+https://a.example/b@5e1f#subdirectory=export"],
        ),
        (
            {RUNTIME: {"url": "https://a.example/mobile_video_sdk-1.whl", "archive_info": {}}},
            ["mobile-video-sdk-export[apple] @ https://a.example/mobile_video_sdk_export-1.whl"],
        ),
    ],
)
def test_the_toolchain_comes_from_where_this_copy_came_from(
    monkeypatch: pytest.MonkeyPatch, sources: Sources, command: list[str]
) -> None:
    _install(monkeypatch, sources)
    assert shlex.split(toolchain_install("apple")) == ["pip", "install", *command]


def test_a_copy_that_is_not_installed_is_installed_with_the_toolchain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _install(monkeypatch, {})
    root = Path(_installed.__file__).resolve().parents[1]
    words = shlex.split(toolchain_install("apple", "executorch"))
    assert words[2:] == ["-e", str(root), "-e", f"{root / 'export'}[apple,executorch]"]
    monkeypatch.setattr(_installed, "_checkout", lambda: None)
    assert toolchain_install() == "pip install 'mobile-video-sdk[export]'"


def test_a_record_that_cannot_be_read_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {RUNTIME: [1], TOOLCHAIN: {"url": 5}})
    assert toolchain_install("apple") == "pip install 'mobile-video-sdk[apple]'"


def test_an_environment_that_is_not_activated_is_named_by_its_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/elsewhere/{name}")
    assert pip_install("torch") == f"{shlex.quote(sys.executable)} -m pip install torch"


def test_an_environment_without_pip_is_served_by_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvsdk._installed.installed_version", lambda name: None)
    assert pip_install("a", "b c") == (
        f"uv pip install --python {shlex.quote(sys.executable)} a 'b c'"
    )


def test_a_newer_runtime_is_had_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {RUNTIME: None})
    assert upgrade_advice() == "run: pip install --upgrade mobile-video-sdk"
    root = Path(_installed.__file__).resolve().parents[1]
    _install(monkeypatch, {RUNTIME: _folder(str(root), editable=True)})
    assert upgrade_advice() == f"run: git -C {shlex.quote(str(root))} pull"
    _install(monkeypatch, {RUNTIME: _wheel("/w", RUNTIME)})
    assert upgrade_advice() == "install a newer release"
