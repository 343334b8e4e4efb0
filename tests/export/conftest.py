"""Fixtures shared by the toolchain's tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from exporting import Toolchain


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


@pytest.fixture(scope="session")
def tiny_svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a public folder of Stable Video Diffusion, small and random: only read it."""
    pytest.importorskip("diffusers")
    from tiny_svd import tiny_pipeline, write_pipeline

    return write_pipeline(tiny_pipeline(), tmp_path_factory.mktemp("svd") / "public")


@pytest.fixture
def svd_copy(tiny_svd_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of `tiny_svd_folder` that a test may change."""
    return Path(shutil.copytree(tiny_svd_folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    """Return the command line with a cache that the session's exports share."""
    pytest.importorskip("torch")
    from exporting import make_toolchain

    return make_toolchain(tmp_path_factory.mktemp("toolchain"))


@pytest.fixture(scope="session")
def onnx_bundle(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a verified bundle of the tiny model, target onnx, every precision: only read it."""
    out = tmp_path_factory.mktemp("bundles") / "onnx.mvbundle"
    return _export(toolchain, out, tiny_model_folder, "--target", "onnx")


@pytest.fixture(scope="session")
def snapdragon_bundle(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a verified bundle of the tiny model for one chip, w8a16 and fp16: only read it."""
    pytest.importorskip("onnxruntime_qnn")
    out = tmp_path_factory.mktemp("bundles") / "snapdragon.mvbundle"
    arguments = ("--target", "snapdragon", "--chip", "sm8550", "--precision", "w8a16,fp16")
    return _export(toolchain, out, tiny_model_folder, *arguments)


def _export(toolchain: Toolchain, out: Path, folder: Path, *arguments: str) -> Path:
    done = toolchain(
        *("export", *arguments, "--checkpoint", folder, "--out", out),
        *("--keep-intermediates", "--json"),
    )
    assert done.status == 0, done.err
    assert Path(json.loads(done.out)["bundle"]).samefile(out)
    return out
