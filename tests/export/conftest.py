"""Fixtures shared by the toolchain's tests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from exporting import Toolchain
    from part_models import Arrays, Borders

    from mvsdk_export.families.svd.unet import SVDUNet


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


@pytest.fixture
def seeded() -> None:
    """Start torch's random numbers anew."""
    pytest.importorskip("torch").manual_seed(0)


@pytest.fixture
def unet() -> SVDUNet:
    """Return the tiny denoiser that tests of compression start from."""
    pytest.importorskip("torch")
    from compressing import build_unet

    return build_unet()


@pytest.fixture(scope="session")
def hourglass(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small denoiser as an ONNX model, to be cut: only read it."""
    pytest.importorskip("torch")
    from part_models import write_hourglass

    return write_hourglass(tmp_path_factory.mktemp("hourglass") / "model.onnx")


@pytest.fixture(scope="session")
def hourglass_feeds() -> list[Arrays]:
    """Return some inputs of `hourglass`."""
    pytest.importorskip("torch")
    from part_models import make_feeds

    return make_feeds()


@pytest.fixture(scope="session")
def hourglass_w8a16(
    hourglass: Path, hourglass_feeds: list[Arrays], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Path], Borders]:
    """Return three parts of `hourglass`, quantised one by one, and the borders of the whole."""
    from part_models import quantize_parts

    from mvsdk_export.graphs.split import split_model

    folder = tmp_path_factory.mktemp("parts")
    parts = split_model(hourglass, folder, parts=3, most_bytes=1 << 30)
    return quantize_parts(parts, hourglass_feeds, folder / "w8a16")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the processes of a run of tests share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def toolchain(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toolchain]:
    """Return the command line with a cache that the run's exports share."""
    pytest.importorskip("torch")
    from exporting import make_toolchain
    from lasting_launcher import LastingLauncher

    own = make_toolchain(tmp_path_factory.mktemp("toolchain"))
    yield replace(own, cache=shared_folder / "cache", keeps=True)
    LastingLauncher.end_all()


@pytest.fixture(scope="session")
def onnx_bundle(toolchain: Toolchain, tiny_model_folder: Path, shared_folder: Path) -> Path:
    """Return a verified bundle of the tiny model, target onnx, every precision: only read it."""
    out = shared_folder / "onnx.mvbundle"
    return _export_once(toolchain, out, tiny_model_folder, "--target", "onnx")


@pytest.fixture(scope="session")
def snapdragon_bundle(toolchain: Toolchain, tiny_model_folder: Path, shared_folder: Path) -> Path:
    """Return a verified bundle of the tiny model for one chip, w8a16 and fp16: only read it."""
    pytest.importorskip("onnxruntime_qnn")
    out = shared_folder / "snapdragon.mvbundle"
    arguments = ("--target", "snapdragon", "--chip", "sm8550", "--precision", "w8a16,fp16")
    return _export_once(toolchain, out, tiny_model_folder, *arguments)


def _export_once(toolchain: Toolchain, out: Path, folder: Path, *arguments: str) -> Path:
    """Export, unless another process of the run has done it."""
    from filelock import FileLock

    with FileLock(f"{out}.lock"):
        if out.exists():
            return out
        done = toolchain(
            *("export", *arguments, "--checkpoint", folder, "--out", out),
            *("--keep-intermediates", "--json"),
        )
    assert done.status == 0, done.err
    assert Path(json.loads(done.out)["bundle"]).samefile(out)
    return out


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run jobs in this process: the first of a session would import torch again."""
    from in_process import InProcessLauncher

    monkeypatch.setattr("mvsdk_export.jobs.runner.Launcher", InProcessLauncher)
