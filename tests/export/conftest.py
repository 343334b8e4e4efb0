"""Fixtures shared by the toolchain's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a whole model folder with small random weights, shared: only read it."""
    pytest.importorskip("torch")
    from tiny_models import write_tiny_model_folder

    return write_tiny_model_folder(tmp_path_factory.mktemp("model") / "tiny").path


@pytest.fixture
def model_copy(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of `tiny_model_folder` that a test may change."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "copy"))
