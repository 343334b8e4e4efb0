"""Fixtures shared by the runtime's tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import trial_backend
from tiny_animators import build_animator, fake_animator, write_animator_onnx
from tiny_bundles import VariantFiles, build_bundle, fake_functions, write_onnx

from mvsdk.backends.fake import Fake
from mvsdk.bundle import Bundle


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, in which the test runs and no bundle is set."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MVSDK_BUNDLE", raising=False)
    return folder


@pytest.fixture
def fake() -> Fake:
    """Return a backend that runs `fake_functions`."""
    return Fake(fake_functions())


@pytest.fixture
def fake_bundle(tmp_path: Path) -> Bundle:
    """Return a bundle for `fake`; its model files are not graphs."""
    return build_bundle(tmp_path / "fake.mvbundle")


@pytest.fixture(scope="session")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle with real ONNX graphs, of a few kilobytes."""
    folder = tmp_path_factory.mktemp("onnx")
    return build_bundle(folder / "tiny.mvbundle", [VariantFiles(content=write_onnx)])


@pytest.fixture
def animator() -> Fake:
    """Return a backend that runs `fake_animator`."""
    return Fake(fake_animator())


@pytest.fixture
def animator_bundle(tmp_path: Path) -> Bundle:
    """Return a bundle for `animator`; its model files are not graphs."""
    return build_animator(tmp_path / "animator.mvbundle")


@pytest.fixture(scope="session")
def animator_onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return an image-to-video bundle with real ONNX graphs."""
    folder = tmp_path_factory.mktemp("animator")
    variants = [VariantFiles(content=write_animator_onnx)]
    return build_animator(folder / "animator.mvbundle", variants)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where processes keep what they print; make `trial_backend` known by its name."""
    trial_backend.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
