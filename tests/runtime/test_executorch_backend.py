"""The ExecuTorch backend for real: programs lowered for XNNPACK, run by ExecuTorch's runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import LENGTH, VariantFiles, build_bundle, write_onnx

import mvsdk
from mvsdk import BackendError, BundleError, ExecuTorch
from mvsdk.bundle import Bundle
from mvsdk.manifest import TensorSpec, Variant

pytestmark = [pytest.mark.executorch, pytest.mark.torch, pytest.mark.slow]
pytest.importorskip("executorch", reason="needs the extra executorch")
pytest.importorskip("torch", reason="needs the extra executorch")

PROMPT = "a rocket flying left"


def _write(component: str, folder: Path, *, beside: bool = False) -> Sequence[Path]:
    from tiny_modules import write_program  # imports PyTorch

    return write_program(component, folder, beside=beside)


def _kind(*, beside: bool = False) -> VariantFiles:
    content = partial(_write, beside=beside)
    return VariantFiles(target="executorch", delegate="xnnpack", content=content)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle with the same graphs for ONNX Runtime and for ExecuTorch."""
    out = tmp_path_factory.mktemp("executorch") / "tiny.mvbundle"
    return build_bundle(out, [VariantFiles(content=write_onnx), _kind()])


def _variant(bundle: Bundle, component: str) -> Variant:
    return bundle.manifest.components[component].variants[-1]


def test_programs_make_the_clip_that_onnx_graphs_make(bundle: Bundle) -> None:
    onnx = mvsdk.load(bundle.path, target="onnx").generate(PROMPT, seed=3)
    with mvsdk.load(bundle.path, backend="executorch") as pipeline:
        assert str(pipeline.selection.key) == "executorch/xnnpack/fp32"
        clip = pipeline.generate(PROMPT, seed=3)
        assert clip.frames.tobytes() == pipeline.generate(PROMPT, seed=3).frames.tobytes()
    assert np.abs(clip.frames.astype(int) - onnx.frames.astype(int)).max() <= 1
    assert clip.timings is not None
    assert clip.timings.backend.startswith("ExecuTorch 1.")


def test_weights_may_lie_beside_the_program(bundle: Bundle, tmp_path: Path) -> None:
    beside = build_bundle(tmp_path / "beside.mvbundle", [_kind(beside=True)])
    names = {Path(ref.path).suffix for ref in _variant(beside, "text_encoder").files}
    assert names == {".pte", ".ptd"}
    clips = [
        mvsdk.load(found.path, target="executorch", memory="low").generate(PROMPT, seed=3)
        for found in (bundle, beside)
    ]
    assert clips[0].frames.tobytes() == clips[1].frames.tobytes()


def _rewritten(
    tmp_path: Path, bundle: Bundle, change: dict[str, bytes], *, suffixes: Sequence[str] = (".pte",)
) -> Bundle:
    """Return a bundle whose hashes are right, though its programs are not."""

    def content(component: str, folder: Path) -> Sequence[Path]:
        written: list[Path] = []
        for ref in _variant(bundle, component).files:
            path = folder / Path(ref.path).name
            if path.suffix in suffixes:
                path.write_bytes(change.get(component, (bundle.path / ref.path).read_bytes()))
                written.append(path)
        return written

    kind = VariantFiles(target="executorch", delegate="xnnpack", content=content)
    return build_bundle(tmp_path / "rewritten.mvbundle", [kind])


def test_a_damaged_program_is_refused_with_its_cause(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = _rewritten(tmp_path, bundle, {"unet": bytes(5000)})
    words = r"unet/executorch-xnnpack-fp32: .*Program identifier '.*; made with executorch unknown"
    with pytest.raises(BackendError, match=words) as caught:
        ExecuTorch().load(broken, _variant(broken, "unet"))
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")


def test_a_program_without_its_weights_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    beside = build_bundle(tmp_path / "beside.mvbundle", [_kind(beside=True)])
    alone = _rewritten(tmp_path, beside, {})
    with pytest.raises(BackendError, match=r"text_encoder/.*external_data_map is null"):
        ExecuTorch().load(alone, _variant(alone, "text_encoder"))


def test_a_program_whose_signature_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    def renamed(component: str, spec: TensorSpec) -> TensorSpec:
        if spec.name == "frames":
            return replace(spec, dtype="float32")
        if component == "text_encoder" and spec.name == "input_ids":
            return replace(spec, dtype="int64")
        return spec

    other = build_bundle(tmp_path / "other.mvbundle", [_kind()], tensors=renamed)
    with pytest.raises(BundleError, match=r"graph's outputs are \{'frames': \(\[8.*'uint8'\)"):
        ExecuTorch().load(other, _variant(other, "vae_decoder"))
    with pytest.raises(BundleError, match=r"graph's inputs are .*'int32'.* says .*'int64'"):
        ExecuTorch().load(other, _variant(other, "text_encoder"))


def test_a_failed_run_is_one_error(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    session = ExecuTorch().load(bundle, _variant(bundle, "text_encoder"))
    named = "text_encoder/executorch-xnnpack-fp32 failed to run: .*0x12; .*999 >= weight.size"
    with pytest.raises(BackendError, match=named):
        session.run({"input_ids": np.full((1, LENGTH), 999, np.int32)})  # beyond the table
    assert capfd.readouterr() == ("", "")


def test_inputs_may_be_read_only_and_results_outlive_the_next_run(bundle: Bundle) -> None:
    session = ExecuTorch().load(bundle, _variant(bundle, "text_encoder"))
    ids = np.zeros((1, LENGTH), np.int32)
    ids.flags.writeable = False
    first = session.run({"input_ids": ids})["encoder_hidden_states"]
    kept = first.copy()
    again = session.run({"input_ids": np.ones((1, LENGTH), np.int32)})["encoder_hidden_states"]
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, again)


def test_nothing_is_printed_by_native_code(bundle: Bundle) -> None:
    command = [sys.executable, "-m", "mvsdk", "generate", PROMPT, "--json"]
    command += ["--bundle", str(bundle.path), "--target", "executorch"]
    command += ["-o", str(bundle.path.parent / "clip.npy"), "--overwrite"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["delegate"] == "xnnpack"
    assert done.stderr == ""


def _write_delegated(component: str, folder: Path) -> Sequence[Path]:
    from tiny_modules import module_of  # imports PyTorch

    from mvsdk_export.targets.executorch.coreml import lower_coreml_delegate

    path = folder / "model.pte"
    network, inputs = module_of(component, frames="float32")
    lower_coreml_delegate(network, inputs, path, deployment_target="iOS18")
    return [path]


@pytest.mark.apple
def test_what_core_ml_takes_is_checked_on_other_systems(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason="needs the extra apple")
    from mvsdk_export.targets.coreml.checker.backend import CoreMLChecker

    def real(component: str, spec: TensorSpec) -> TensorSpec:
        return replace(spec, dtype="float32") if spec.name == "frames" else spec

    kind = VariantFiles(
        target="executorch", precision="fp16", delegate="coreml", content=_write_delegated
    )
    made = build_bundle(tmp_path / "delegated.mvbundle", [kind], tensors=real)
    backend = CoreMLChecker()
    assert "delegate coreml" in (ExecuTorch().unsupported_reason(_variant(made, "unet")) or "")
    assert "not delegate xnnpack" in (backend.unsupported_reason(_variant(bundle, "unet")) or "")
    with mvsdk.load(made.path, backend=backend) as pipeline:
        clip = pipeline.generate(PROMPT, seed=3)
    onnx = mvsdk.load(bundle.path, target="onnx").generate(PROMPT, seed=3)
    assert np.abs(clip.frames.astype(int) - onnx.frames.astype(int)).max() <= 2

    wrong = build_bundle(tmp_path / "wrong.mvbundle", [_two_inputs(made)], tensors=real)
    with pytest.raises(BackendError, match="takes 1 inputs and gives 1 outputs, its manifest says"):
        backend.load(wrong, _variant(wrong, "unet"))


def _two_inputs(made: Bundle) -> VariantFiles:
    """Return a variant whose denoiser is the program of another component."""

    def content(component: str, folder: Path) -> Sequence[Path]:
        other = "vae_decoder" if component == "unet" else component
        path = folder / "model.pte"
        path.write_bytes(made.model(_variant(made, other)).read_bytes())
        return [path]

    return VariantFiles(target="executorch", precision="fp16", delegate="coreml", content=content)
