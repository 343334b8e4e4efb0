"""The Core AI backend for real: assets made by Apple's converter, run by Apple's runtime."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import LENGTH, VariantFiles, build_bundle, write_onnx

import mvsdk
from mvsdk import BackendError, BundleError, CoreAI
from mvsdk.backends import coreai
from mvsdk.bundle import Bundle
from mvsdk.manifest import TensorSpec, Variant

pytestmark = [pytest.mark.coreai, pytest.mark.torch]
pytest.importorskip("coreai", reason="needs the extra coreai")
pytest.importorskip("torch", reason="needs the extra coreai")

PROMPT = "a rocket flying left"


def _write(component: str, folder: Path) -> Sequence[Path]:
    from tiny_modules import write_asset  # imports PyTorch

    return write_asset(component, folder)


ASSET = VariantFiles(target="iphone", package="coreai", content=_write)


def _float_frames(component: str, spec: TensorSpec) -> TensorSpec:
    return replace(spec, dtype="float32") if spec.name == "frames" else spec


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("coreai") / "tiny.mvbundle"
    return build_bundle(out, [ASSET], tensors=_float_frames)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which the runtime puts what it compiles."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _variant(bundle: Bundle, component: str) -> Variant:
    return bundle.manifest.components[component].variants[0]


def test_assets_make_the_clip_that_onnx_graphs_make(bundle: Bundle, tmp_path: Path) -> None:
    graphs = build_bundle(tmp_path / "onnx.mvbundle", [VariantFiles(content=write_onnx)])
    onnx = mvsdk.load(graphs.path).generate(PROMPT, seed=3)
    with mvsdk.load(bundle.path) as pipeline:
        assert str(pipeline.selection.key) == "iphone/coreai/fp32"
        clip = pipeline.generate(PROMPT, seed=3)
        assert clip.frames.tobytes() == pipeline.generate(PROMPT, seed=3).frames.tobytes()
    assert clip.frames.dtype == np.uint8
    assert np.abs(clip.frames.astype(int) - onnx.frames.astype(int)).max() <= 1
    assert clip.timings is not None
    assert clip.timings.backend.startswith("Core AI runtime 1.")


def test_clips_are_made_inside_a_running_loop_too(bundle: Bundle) -> None:
    """As in a notebook, whose cells run in a loop of its own."""

    async def cell() -> bytes:
        with mvsdk.load(bundle.path) as pipeline:
            return pipeline.generate(PROMPT, seed=3).frames.tobytes()

    outside = mvsdk.load(bundle.path, memory="low").generate(PROMPT, seed=3)
    assert asyncio.run(cell()) == outside.frames.tobytes()


def test_what_is_compiled_lasts_as_long_as_its_session(bundle: Bundle, scratch: Path) -> None:
    session = CoreAI().load(bundle, _variant(bundle, "unet"))
    session.close()
    session.close()
    assert list(scratch.iterdir()) == []
    dropped = CoreAI().load(bundle, _variant(bundle, "unet"))
    dropped.run({spec.name: np.zeros(spec.shape, np.float32) for spec in dropped._inputs})
    del dropped
    gc.collect()
    deadline = time.monotonic() + 10
    while list(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(scratch.iterdir()) == []


def _changed(tmp_path: Path, bundle: Bundle, name: str, content: bytes) -> Bundle:
    """Return a bundle whose hashes are right, though a file of every asset is not."""

    def copied(component: str, folder: Path) -> Sequence[Path]:
        variant = _variant(bundle, component)
        model = folder / Path(variant.model).name
        model.mkdir()
        for ref in variant.files:
            path = model / Path(ref.path).name
            whole = (bundle.path / ref.path).read_bytes()
            path.write_bytes(content if path.name == name else whole)
        return [model]

    kind = VariantFiles(target="iphone", package="coreai", content=copied)
    return build_bundle(tmp_path / "changed.mvbundle", [kind], tensors=_float_frames)


def test_an_asset_of_another_version_is_refused(
    bundle: Bundle, tmp_path: Path, scratch: Path
) -> None:
    later = json.dumps({"assetVersion": "9.0", "producer": "x"}).encode()
    changed = _changed(tmp_path, bundle, "metadata.json", later)
    words = (
        r"Core AI cannot load unet/iphone-coreai-fp32: .*; made with coreai-core unknown, here is "
        r".*, tested is 1\.0\.0b3: .*; export the bundle again, or run: .*pip install coreai-core=="
    )
    with pytest.raises(BackendError, match=words):
        CoreAI().load(changed, _variant(changed, "unet"))
    assert list(scratch.iterdir()) == []


def test_a_file_that_is_no_program_is_refused_before_the_runtime_ends_the_process(
    bundle: Bundle, tmp_path: Path
) -> None:
    changed = _changed(tmp_path, bundle, "main.mlirb", bytes(1000))
    with pytest.raises(BundleError, match=r"model\.aimodel holds no Core AI program; export"):
        CoreAI().load(changed, _variant(changed, "unet"))


def test_a_function_that_is_not_there_is_named(bundle: Bundle, scratch: Path) -> None:
    variant = replace(_variant(bundle, "unet"), function="other")
    with pytest.raises(BackendError, match="No function named 'other'"):
        CoreAI().load(bundle, variant)
    assert list(scratch.iterdir()) == []


def test_an_asset_whose_signature_is_not_the_manifests_is_refused(
    tmp_path: Path, scratch: Path
) -> None:
    other = build_bundle(tmp_path / "other.mvbundle", [ASSET])
    with pytest.raises(BundleError, match=r"outputs are \{'frames': .*'float32'.* says .*'uint8'"):
        CoreAI().load(other, _variant(other, "vae_decoder"))
    assert list(scratch.iterdir()) == []


def test_results_of_a_run_outlive_the_next(bundle: Bundle) -> None:
    session = CoreAI().load(bundle, _variant(bundle, "text_encoder"))
    ids = np.zeros((1, LENGTH), np.int32)
    ids.flags.writeable = False
    first = session.run({"input_ids": ids})["encoder_hidden_states"]
    kept = first.copy()
    session.run({"input_ids": np.ones((1, LENGTH), np.int32)})
    assert np.array_equal(first, kept)


def test_nothing_is_printed_by_native_code(bundle: Bundle) -> None:
    command = [sys.executable, "-m", "mvsdk", "generate", PROMPT, "--json"]
    command += ["--bundle", str(bundle.path), "--backend", "coreai"]
    command += ["-o", str(bundle.path.parent / "clip.npy"), "--overwrite"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["format"] == "coreai"
    assert done.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_program_has_a_loop_that_runs() -> None:
    async def answer() -> int:
        return 7

    assert coreai._loop().run(answer()) == 7
    forked = os.fork()
    if forked == 0:
        signal.alarm(10)  # it would wait for a thread that only its parent has
        try:
            os._exit(coreai._loop().run(answer()))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 7
