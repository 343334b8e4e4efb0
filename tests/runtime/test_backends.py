"""What goes in and out of graphs, ONNX Runtime, and what QNN says when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_bundles import (
    LATENTS,
    LENGTH,
    WIDTH,
    VariantFiles,
    build_bundle,
    fake_functions,
    write_onnx,
)

import mvsdk
from mvsdk import BackendError, BundleError, Fake, InputError, OnnxRuntime, Qnn
from mvsdk.backends import qnn
from mvsdk.backends._graph import GraphSession, decode, encode
from mvsdk.backends.native_output import captured_native_output
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.manifest import TensorSpec, Variant

NPU = VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650")


# --- the I/O signature of a graph ----------------------------------------------------------------


def _spec(dtype: Any, **more: Any) -> TensorSpec:
    return TensorSpec(name="x", shape=(4,), dtype=dtype, **more)


def test_quantization_rounds_halves_to_even_and_clips() -> None:
    spec = _spec("uint8", scale=0.5, zero_point=10)
    stored = encode(spec, np.float32([0.25, 0.75, -100.0, 1000.0]))
    assert stored.dtype == np.uint8
    assert stored.tolist() == [10, 12, 0, 255]
    assert decode(spec, stored).tolist() == [0.0, 1.0, -5.0, 122.5]
    assert decode(spec, stored).dtype == np.float32


def test_quantization_clips_to_int32_whose_ends_are_no_float32() -> None:
    spec = _spec("int32", scale=1e-9, zero_point=0)
    stored = encode(spec, np.float32([10.0, -10.0, 3e38, 1e-9]))
    assert stored.tolist() == [2**31 - 1, -(2**31), 2**31 - 1, 1]


def test_quantization_of_16_bits_is_exact_to_half_a_step() -> None:
    spec = TensorSpec(name="x", shape=(1000,), dtype="uint16", scale=8 / 65535, zero_point=32768)
    value = np.linspace(-3.9, 3.9, 1000, dtype=np.float32)
    assert np.abs(decode(spec, encode(spec, value)) - value).max() <= 0.51 * 8 / 65535


def test_float16_and_integers_are_cast() -> None:
    value = np.float32([1, 2, 3, 4])
    assert encode(_spec("float16"), value).dtype == np.float16
    assert decode(_spec("float16"), value.astype(np.float16)).dtype == np.float32
    assert encode(_spec("int64", type="integer"), np.int32([1, 2, 3, 4])).dtype == np.int64
    assert decode(_spec("uint8", type="pixels"), np.uint8([1, 2, 3, 4])).dtype == np.uint8


def test_a_tensor_without_axes_stays_one() -> None:
    spec = TensorSpec(name="timestep", shape=(), dtype="float16")
    assert encode(spec, np.zeros((), np.float32)).shape == ()


def _decoded(values: list[float], dtype: Any, **more: Any) -> np.ndarray:
    kind = {"type": "pixels", **more}
    spec = TensorSpec(name="frames", shape=(len(values),), dtype=dtype, **kind)
    session = GraphSession("vae_decoder", [], [spec], lambda feeds: [np.asarray(values, dtype)])
    frames = session.run({})["frames"]
    assert frames.dtype == np.uint8
    return frames


def test_frames_leave_a_session_as_bytes_whatever_the_graph_gives() -> None:
    assert _decoded([0, 7, 255], "uint8").tolist() == [0, 7, 255]
    assert _decoded([-3, 7, 300], "int32").tolist() == [0, 7, 255]
    halves = [0.5, 1.5, 2.5, 254.5, 255.5, -0.5, -9.0, 1000.0]
    for dtype in ("float32", "float16"):
        assert _decoded(halves, dtype).tolist() == [0, 2, 2, 254, 255, 0, 0, 255]
    assert _decoded([0, 1, 200], "uint8", scale=2.0, zero_point=0).tolist() == [0, 2, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_frames_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(BackendError, match="vae_decoder/frames has nan or infinite values; run"):
        _decoded([1.0, value], "float32")


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_clips_of_graphs_without_bytes_are_equal(tmp_path: Path, dtype: Any) -> None:
    def without_bytes(component: str, spec: TensorSpec) -> TensorSpec:
        return replace(spec, dtype=dtype) if spec.dtype == "uint8" else spec

    functions = fake_functions()
    bytes_of = functions["vae_decoder"]

    def vae_decoder(feeds: Any) -> dict[str, np.ndarray]:
        return {"frames": np.floor(bytes_of(feeds)["frames"])}

    functions["vae_decoder"] = vae_decoder
    bundle = build_bundle(tmp_path / "whole.mvbundle", tensors=without_bytes)
    plain = build_bundle(tmp_path / "bytes.mvbundle")
    clip, exact = (
        mvsdk.load(path, backend=Fake(functions)).generate("a cat").frames
        for path in (bundle.path, plain.path)
    )
    assert clip.dtype == np.uint8
    assert np.array_equal(clip, exact)


def test_quantized_signatures_do_not_show_in_the_pipeline(tmp_path: Path) -> None:
    """The same fake model behind uint16 tensors: float32 in and out, and nearly the same clip."""

    def quantized(component: str, spec: TensorSpec) -> TensorSpec:
        if component == "unet" and spec.name in ("sample", "model_output"):
            return replace(spec, dtype="uint16", scale=16 / 65535, zero_point=32768)
        return spec

    functions = fake_functions()

    def unet(feeds: Any) -> dict[str, np.ndarray]:
        assert feeds["sample"].dtype == np.uint16
        spec = quantized("unet", TensorSpec(name="sample", shape=LATENTS, dtype="float32"))
        outputs = functions["unet"]({**feeds, "sample": decode(spec, feeds["sample"])})
        return {"model_output": encode(spec, outputs["model_output"])}

    bundle = build_bundle(tmp_path / "q.mvbundle", tensors=quantized)
    plain = build_bundle(tmp_path / "f.mvbundle")
    clip = mvsdk.load(bundle.path, backend=Fake({**functions, "unet": unet})).generate("a cat")
    exact = mvsdk.load(plain.path, backend=Fake(functions)).generate("a cat")
    assert np.abs(clip.frames.astype(int) - exact.frames.astype(int)).max() <= 1


def test_a_wrong_shape_is_named_with_the_right_one() -> None:
    session = GraphSession("unet", [_spec("float32")], [], lambda feeds: [])
    with pytest.raises(InputError, match=r"unet/x has shape \(3,\), bundle wants \(4,\)"):
        session.run({"x": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match="unet needs the input 'x'; given: y"):
        session.run({"y": np.zeros(4, np.float32)})


def test_a_closed_session_says_so() -> None:
    closed: list[int] = []
    session = GraphSession("unet", [], [], lambda feeds: [], close=lambda: closed.append(1))
    session.close()
    session.close()
    assert closed == [1]
    with pytest.raises(BackendError, match="unet is closed"):
        session.run({})


# --- ONNX Runtime --------------------------------------------------------------------------------


def _variant(bundle: Bundle, component: str) -> Variant:
    return bundle.manifest.components[component].variants[0]


def test_onnx_runtime_runs_a_graph_and_counts_its_time(onnx_bundle: Bundle) -> None:
    session = OnnxRuntime(threads=1).load(onnx_bundle, _variant(onnx_bundle, "text_encoder"))
    assert session.run_s == 0
    outputs = session.run({"input_ids": np.zeros((1, LENGTH), np.int32)})
    assert outputs["encoder_hidden_states"].shape == (1, LENGTH, WIDTH)
    assert 0 < session.run_s < 1


def test_onnx_runtime_refuses_another_target(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path / "npu.mvbundle", [NPU])
    with pytest.raises(BackendError, match="runs the format onnx, not qnn_context"):
        OnnxRuntime().load(bundle, _variant(bundle, "unet"))


def test_a_file_that_is_no_graph_is_refused_in_one_line(fake_bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="cannot load unet/onnx-fp32: ") as caught:
        OnnxRuntime().load(fake_bundle, _variant(fake_bundle, "unet"))
    assert "\n" not in str(caught.value)


def test_a_graph_whose_signature_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    def renamed(component: str, spec: TensorSpec) -> TensorSpec:
        if spec.name == "encoder_hidden_states":
            return replace(spec, shape=(1, LENGTH, WIDTH + 1))
        return spec

    bundle = build_bundle(
        tmp_path / "b.mvbundle", [VariantFiles(content=write_onnx)], tensors=renamed
    )
    with pytest.raises(BundleError, match="text_encoder/onnx-fp32: the graph's outputs are"):
        OnnxRuntime().load(bundle, _variant(bundle, "text_encoder"))


def test_a_failure_inside_the_runtime_is_a_backend_error(onnx_bundle: Bundle) -> None:
    session = OnnxRuntime().load(onnx_bundle, _variant(onnx_bundle, "text_encoder"))
    with pytest.raises(BackendError, match="text_encoder/onnx-fp32 failed to run: "):
        session.run({"input_ids": np.full((1, LENGTH), 999, np.int32)})  # beyond the table


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="threads is 0"):
        OnnxRuntime(threads=0)


# --- QNN, without its package --------------------------------------------------------------------


def _snapdragon(tmp_path: Path) -> Variant:
    bundle = build_bundle(tmp_path / "npu.mvbundle", [NPU])
    return replace(_variant(bundle, "unet"), tools={"onnxruntime-qnn": "2.6.0"})


@pytest.mark.parametrize(
    ("message", "printed", "cause", "step"),
    [
        ("Failed to create context from binary. Error code: 5005", [], "error 5005,", "this chip"),
        ("context creation failed", ["<E> Context create failed err 0x138d"], "error 5005,", ""),
        ("QNN_CONTEXT_ERROR_CREATE_FROM_BINARY", [], "error 5005,", "this chip"),
        ("err 5000", [], "error 5000,", "update onnxruntime-qnn"),
        ("Error code: 5004", [], "error 5004,", "update onnxruntime-qnn"),
        ("err 5005", ["<E> graph memory, with err 1002"], "error 1002,", 'memory="low"'),
        ("err 5005", ["<E> Transport layer setup failed, error: 14001"], "14001,", "ADSP_LIB"),
        ("Failed to get context binary info.", [], "damaged", "inspect --verify"),
        ("The file path in ep_cache_context does not exist", [], "not beside it", "export"),
        ("SetupBackend failed", ["Unable to load backend, error: x"], "cannot be loaded", "doctor"),
        ("something new", [], "something new", "mvsdk doctor"),
    ],
)
def test_qnn_errors_become_a_cause_and_a_next_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    printed: list[str],
    cause: str,
    step: str,
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.7.0")
    text = qnn._explain(_snapdragon(tmp_path), message, printed)
    assert text.startswith("QNN cannot load unet/snapdragon-sm8650-w8a16: ")
    assert cause in text
    assert step in text
    assert "made for sm8650 with QNN 2.6.0, here is onnxruntime-qnn 2.7.0" in text


def test_qnn_errors_of_a_run_are_explained_too() -> None:
    explained = qnn._explain_run("QNN graph execute error. Error code: 6001")
    assert explained.startswith("error 6001, the NPU stopped while it ran the graph; run the onnx")
    assert qnn._explain_run("something new") == "something new"


def test_qnn_error_codes_may_have_leading_zeros() -> None:
    assert qnn._explain_run("error 01, then err 05005").startswith("error 5005, ")


@pytest.mark.parametrize(("cpu_nodes", "entries"), [(0, 1), (2, 0)])
def test_qnn_lets_only_the_nodes_of_the_manifest_run_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cpu_nodes: int, entries: int
) -> None:
    class Options(SimpleNamespace):
        def add_session_config_entry(self, key: str, value: str) -> None:
            seen.append((key, value))

        def add_provider_for_devices(self, devices: Any, options: Any) -> None:
            pass

    seen: list[tuple[str, str]] = []
    for name in ("register", "find_device"):
        monkeypatch.setattr(qnn, name, lambda ort: None)
    monkeypatch.setattr(qnn, "provider_options", lambda package, chip: {})
    chip = find_chipset("sm8650").chip
    qnn._options(SimpleNamespace(SessionOptions=Options), chip, cpu_nodes)
    assert seen == [("session.disable_cpu_ep_fallback", "1")] * entries


class _Ort:
    """Stands for the module `onnxruntime` on a machine with these devices."""

    class OrtHardwareDeviceType:
        CPU, GPU, NPU = range(3)

    def __init__(self, *kinds: int) -> None:
        devices = [SimpleNamespace(type=kind) for kind in kinds]
        self._devices = [SimpleNamespace(ep_name="QNN", device=device) for device in devices]

    def get_ep_devices(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(ep_name="CPUExecutionProvider", device=None), *self._devices]


def test_qnn_takes_the_npu_and_never_emulates_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu, npu = range(3)
    monkeypatch.setattr("platform.machine", lambda: "ARM64")
    assert qnn.find_device(_Ort(cpu, gpu, npu)).device.type == npu
    with pytest.raises(BackendError, match="QNN finds no NPU on this ARM64 machine"):
        qnn.find_device(_Ort(cpu, gpu))
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert qnn.find_device(_Ort(cpu)).device.type == cpu


def test_qnn_says_that_it_is_an_emulator_on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.7.0")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert Qnn().describe() == "QNN 2.7.0, HTP emulator on x86_64: not a phone's times"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert Qnn().describe() == "QNN 2.7.0 on this machine's NPU"


def test_native_chatter_is_captured_and_other_lines_pass() -> None:
    code = """
import ctypes, os
from mvsdk.backends.native_output import captured_native_output
libc = ctypes.CDLL(None)
with captured_native_output() as lines:
    libc.printf(b" # LIBNATIVE: hello\\n")
    os.write(2, b"\\x1b[1;31m2026 [E:onnxruntime:, x.cc:1 f] QNN failed\\x1b[m\\n")
    os.write(1, b"a line of another thread\\n")
libc.printf(b"after\\n")
libc.fflush(None)
print(lines)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "a line of another thread",
        "after",
        "['# LIBNATIVE: hello', '2026 [E:onnxruntime:, x.cc:1 f] QNN failed']",
    ]


def test_capture_gives_the_descriptors_back_after_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        os.write(1, b"QNN <E> reason\n")
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), captured_native_output() as lines:
        fail()
    os.write(1, b"visible\n")
    assert lines == ["QNN <E> reason"]
    assert capfd.readouterr().out == "visible\n"


def test_native_lines_on_pythons_own_stream_are_captured_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with captured_native_output() as lines:
        sys.stderr.write("[program.cpp:168] identifier\na line of another thread\nODIE [x]: y\n")
    assert lines == ["[program.cpp:168] identifier", "ODIE [x]: y"]
    assert capsys.readouterr().err == "a line of another thread\n"


def test_captures_may_be_nested(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_native_output() as outer:
        with captured_native_output() as inner:
            os.write(1, b"QNN inner\n")
        os.write(2, b"QNN outer\n")
    assert (inner, outer) == (["QNN inner"], ["QNN outer"])
    assert capfd.readouterr() == ("", "")
