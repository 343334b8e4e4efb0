"""The QNN backend for real: graphs compiled by Qualcomm's compiler, run by its emulator."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import LATENTS, LENGTH, VariantFiles, build_bundle, onnx_model, write_onnx

import mvsdk
from mvsdk import BackendError, OnnxRuntime, Qnn
from mvsdk.backends.native_output import captured_native_output
from mvsdk.backends.qnn import find_device, provider_options, register
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset

pytestmark = pytest.mark.qnn
pytest.importorskip("onnxruntime_qnn", reason="needs the extra snapdragon")
if platform.machine().lower() not in ("x86_64", "amd64"):
    pytest.skip("compiles for the emulator", allow_module_level=True)

PROMPT = "a rocket flying left"


def _compile(component: str, folder: Path) -> Sequence[Path]:
    """Compile a tiny graph for sm8650 in float16, as an exporter would."""
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    source, target = folder.parent / f"{component}.onnx", folder / "model_ctx.onnx"
    onnx.save(onnx_model(component), source)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    chip = find_chipset("sm8650").chip
    with captured_native_output():
        provider = provider_options(register(ort), chip) | {"enable_htp_fp16_precision": "1"}
        options.add_provider_for_devices([find_device(ort)], provider)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_file_path", str(target))
        options.add_session_config_entry("ep.context_embed_mode", "0")
        ort.InferenceSession(str(source), options)
    source.unlink()
    return [target, *sorted(folder.glob("*.bin"))]


@pytest.fixture(scope="module")
def npu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle with the same graphs for onnx and for the emulator."""
    out = tmp_path_factory.mktemp("qnn") / "tiny.mvbundle"
    onnx = VariantFiles(content=write_onnx)
    npu = VariantFiles(target="snapdragon", precision="fp16", chip="sm8650", content=_compile)
    return build_bundle(out, [npu, onnx])


def test_the_emulator_makes_the_clip_that_the_cpu_makes(npu_bundle: Bundle) -> None:
    onnx = mvsdk.load(npu_bundle.path, target="onnx").generate(PROMPT, seed=3)
    with mvsdk.load(npu_bundle.path, target="snapdragon") as pipeline:
        npu = pipeline.generate(PROMPT, seed=3)
        assert npu.frames.tobytes() == pipeline.generate(PROMPT, seed=3).frames.tobytes()
    error = np.mean((npu.frames.astype(float) - onnx.frames.astype(float)) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 40
    assert npu.timings is not None
    assert "emulator on x86_64: not a phone's times" in npu.timings.backend


def test_low_memory_reloads_contexts_in_one_process(npu_bundle: Bundle) -> None:
    pipeline = mvsdk.load(npu_bundle.path, target="snapdragon", memory="low")
    first = pipeline.generate(PROMPT).frames.tobytes()
    assert pipeline.generate(PROMPT).frames.tobytes() == first


def test_unet_on_the_emulator_is_close_to_float32(npu_bundle: Bundle) -> None:
    npu, onnx = npu_bundle.manifest.components["unet"].variants
    generator = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        "sample": generator.standard_normal(LATENTS).astype(np.float32),
        "timestep": np.float32([500]),
        "encoder_hidden_states": generator.standard_normal((1, LENGTH, 8)).astype(np.float32),
    }
    got = Qnn().load(npu_bundle, npu).run(inputs)["model_output"]
    want = OnnxRuntime().load(npu_bundle, onnx).run(inputs)["model_output"]
    noise = np.mean((got - want) ** 2)
    assert 10 * np.log10(np.mean(want**2) / noise) > 45


def test_nothing_is_printed_by_native_code(npu_bundle: Bundle) -> None:
    command = [sys.executable, "-m", "mvsdk", "generate", PROMPT, "--json"]
    command += ["--bundle", str(npu_bundle.path), "--target", "snapdragon"]
    command += ["-o", str(npu_bundle.path.parent / "clip.npy"), "--overwrite"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["chip"] == "sm8650"
    assert done.stderr == ""


def test_a_damaged_context_is_refused_with_its_cause(npu_bundle: Bundle, tmp_path: Path) -> None:
    """Hashes say nothing here: the bundle was written from the damaged file."""

    def zeros(component: str, folder: Path) -> Sequence[Path]:
        variant = npu_bundle.manifest.components[component].variants[0]
        written: list[Path] = []
        for ref in variant.files:
            content = (npu_bundle.path / ref.path).read_bytes()
            path = folder / Path(ref.path).name
            path.write_bytes(bytes(len(content)) if path.suffix == ".bin" else content)
            written.append(path)
        return written

    npu = VariantFiles(target="snapdragon", precision="fp16", chip="sm8650", content=zeros)
    bundle = build_bundle(tmp_path / "bad.mvbundle", [npu])
    with pytest.raises(BackendError, match=r"context binary is damaged.* made for sm8650"):
        mvsdk.load(bundle.path).generate(PROMPT)


def test_a_graph_that_is_not_compiled_does_not_fall_back_to_the_cpu(tmp_path: Path) -> None:
    """A context that the NPU cannot take must fail, not run slowly on the CPU in silence."""
    pytest.importorskip("onnx")

    def plain(component: str, folder: Path) -> Sequence[Path]:
        return (
            _with_foreign_operators(folder)
            if component == "unet"
            else write_onnx(component, folder)
        )

    npu = VariantFiles(target="snapdragon", precision="fp16", chip="sm8650", content=plain)
    bundle = build_bundle(tmp_path / "cpu.mvbundle", [npu])
    variant = bundle.manifest.components["unet"].variants[0]
    with pytest.raises(BackendError, match="not compiled for the NPU, and falling back"):
        Qnn().load(bundle, variant)


def _with_foreign_operators(folder: Path) -> list[Path]:
    """Write the unet with operators that the NPU does not have."""
    onnx = pytest.importorskip("onnx")
    model = onnx_model("unet")
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("IsNaN", ["before"], ["flags"]))
    model.graph.node.append(onnx.helper.make_node("Cast", ["flags"], ["ones"], to=1))
    model.graph.node.append(onnx.helper.make_node("Det", ["before"], ["determinant"]))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["determinant"], ["d"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Add", ["ones", "d"], ["model_output"]))
    onnx.save(model, folder / "model.onnx")
    return [folder / "model.onnx"]
