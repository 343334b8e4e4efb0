"""Fixtures shared by the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bundles import VariantFiles, build_bundle, fake_functions, write_onnx

from mvsdk.backends.fake import Fake
from mvsdk.bundle import Bundle


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
