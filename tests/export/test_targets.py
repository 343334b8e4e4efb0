"""Targets: ONNX graphs and their borders, and what Qualcomm's compiler leaves outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import nn

from mvsdk.devices import find_chipset
from mvsdk.errors import BackendError
from mvsdk.manifest import Chip
from mvsdk_export.errors import TargetUnavailableError, UnsupportedOpError
from mvsdk_export.graphs import onnx as onnx_target
from mvsdk_export.graphs.onnx import (
    OPSET_VERSION,
    append_byte_output,
    convert_float16,
    export_onnx,
    prepend_byte_input,
    quantize_signature,
    save_model,
    strip_metadata,
    tensor_specs,
)
from mvsdk_export.targets.snapdragon import compiler as snapdragon
from mvsdk_export.targets.snapdragon.compiler import (
    compile_context,
    compiler_options,
    read_delegation,
)

pytestmark = pytest.mark.torch

SHAPE = (1, 8)


def make_model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    *,
    output_type: int = TensorProto.FLOAT,
    shape: tuple[int | str, ...] = SHAPE,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", output_type, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET_VERSION)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def run(model: onnx.ModelProto | Path, x: NDArray[Any]) -> NDArray[Any]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_bytes_are_rounded_and_saturated_as_numpy_does() -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {})
    append_byte_output(model, "y")
    onnx.checker.check_model(model)
    values = np.random.default_rng(0).uniform(-0.2, 1.2, (250, *SHAPE)).astype(np.float32)
    scaled = values.astype(np.float64) * 255
    clear = np.abs(scaled - np.floor(scaled) - 0.5) > 1e-3
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.stack([np.asarray(session.run(["y"], {"x": row})[0]) for row in values])
    wanted = np.clip(np.rint(scaled), 0, 255)
    assert found.dtype == np.uint8
    assert clear.mean() > 0.99
    assert (found[clear] == wanted[clear]).all()
    assert {0, 255} <= set(found.ravel().tolist())


def test_output_that_is_read_inside_the_graph_stays_float_there() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    model = make_model(nodes, {})
    append_byte_output(model, "y")
    onnx.checker.check_model(model, full_check=True)
    assert run(model, np.full(SHAPE, 0.2, np.float32)).tolist() == [[51] * 8]


def make_qdq(*, second_reader: bool = False) -> onnx.ModelProto:
    """Return x -> quantise -> dequantise -> Relu -> quantise -> dequantise -> y."""
    constants = {
        "sx": np.array(0.5, np.float32),
        "zx": np.array(100, np.uint16),
        "sy": np.array(0.25, np.float32),
        "zy": np.array(3, np.uint16),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("Relu", ["xd"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "sy", "zy"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    if second_reader:
        nodes.append(helper.make_node("Neg", ["x"], ["unused"]))
    return make_model(nodes, constants)


def test_quantised_borders_become_integers_with_the_same_values() -> None:
    x = np.linspace(-8, 8, 8, dtype=np.float32).reshape(SHAPE)
    wanted = run(make_qdq(), x)
    model = make_qdq()
    borders = quantize_signature(model)
    onnx.checker.check_model(model, full_check=True)
    assert borders == {"x": (0.5, 100), "y": (0.25, 3)}
    found = run(model, np.rint(x / 0.5 + 100).astype(np.uint16))
    assert found.dtype == np.uint16
    assert ((found.astype(np.float32) - 3) * 0.25 == wanted).all()
    specs = tensor_specs([*model.graph.input, *model.graph.output], borders)
    assert [(s.name, s.shape, s.dtype, s.scale, s.zero_point) for s in specs] == [
        ("x", SHAPE, "uint16", 0.5, 100),
        ("y", SHAPE, "uint16", 0.25, 3),
    ]


def test_input_that_is_also_read_as_float_stays_float() -> None:
    model = make_qdq(second_reader=True)
    assert quantize_signature(model) == {"y": (0.25, 3)}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.checker.check_model(model, full_check=True)


def test_notes_about_the_machine_are_removed(tmp_path: Path) -> None:
    model = make_qdq()
    secret = "/home/somebody/project/file.py"
    for holder in (model, model.graph, model.graph.node[0], model.graph.input[0]):
        holder.metadata_props.add(key="stack_trace", value=secret)
    model.graph.initializer[0].metadata_props.add(key="origin", value=secret)
    model.graph.node[0].doc_string = secret
    onnx.save(model, tmp_path / "model.onnx")
    assert secret.encode() in (tmp_path / "model.onnx").read_bytes()
    strip_metadata(tmp_path / "model.onnx")
    assert secret.encode() not in (tmp_path / "model.onnx").read_bytes()


def test_large_weights_go_to_a_file_beside_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = np.arange(8 * 512, dtype=np.float32).reshape(8, 512)
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}, shape=())
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 512)))
    x = np.ones(SHAPE, np.float32)
    wanted = run(model, x)
    monkeypatch.setattr(onnx_target, "EXTERNAL_DATA_BYTES", 1024)
    save_model(model, tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.data", "model.onnx"]
    assert (run(tmp_path / "model.onnx", x) == wanted).all()


def test_float16_model_keeps_float32_borders(tmp_path: Path) -> None:
    weights = np.full((8, 8), 0.1, np.float32)
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights})
    half = convert_float16(model)
    assert [t.data_type for t in half.graph.initializer] == [TensorProto.FLOAT16]
    found = run(half, np.ones(SHAPE, np.float32))
    assert found.dtype == np.float32
    assert found == pytest.approx(0.8, rel=1e-2)


@pytest.mark.slow
def test_float16_model_casts_a_value_once_for_all_that_need_it_in_float32(tmp_path: Path) -> None:
    """Two resizes that share their factors got two casts of one name, which no runtime loads."""

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.reshape(1, 1, 2, 4)
            larger = F.interpolate(x, scale_factor=2.0) * F.interpolate(x * x, scale_factor=2.0)
            return larger.mean(dim=(1, 2))

    x = torch.linspace(-1, 1, 8).reshape(SHAPE)
    export_onnx(Twice(), {"x": x}, ["y"], tmp_path / "model.onnx")
    half = convert_float16(onnx.load(tmp_path / "model.onnx"))
    names = [node.name for node in half.graph.node]
    assert len(set(names)) == len(names)
    assert run(half, x.numpy()) == pytest.approx(Twice()(x).numpy(), abs=1e-3)


def test_bytes_are_read_as_numbers_from_0_to_1() -> None:
    model = make_model([helper.make_node("Mul", ["x", "x"], ["y"])], {})
    prepend_byte_input(model, "x")
    onnx.checker.check_model(model, full_check=True)
    x = np.array([[0, 1, 51, 102, 127, 128, 254, 255]], np.uint8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(uint8)"
    found = np.asarray(session.run(None, {"x": x})[0])
    assert found == pytest.approx((x / 255.0) ** 2, rel=1e-6)


@pytest.mark.slow
def test_traced_network_computes_what_pytorch_does(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.SiLU())
    x = torch.linspace(-1, 1, 8).reshape(SHAPE)
    export_onnx(network, {"x": x}, ["y"], tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [i.version for i in model.opset_import if i.domain == ""] == [OPSET_VERSION]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert str(Path(__file__).parent).encode() not in (tmp_path / "model.onnx").read_bytes()
    with torch.inference_mode():
        wanted = network(x).numpy()
    assert run(tmp_path / "model.onnx", x.numpy()) == pytest.approx(wanted, abs=1e-6)


def test_nodes_left_outside_are_named_with_the_reason_from_the_log(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("EPContext", ["x"], ["a"], name="whole", domain="com.microsoft"),
        helper.make_node("LayerNormalization", ["a", "s"], ["b"], name="norm_1"),
        helper.make_node("NonZero", ["b"], ["y"], name="other"),
    ]
    onnx.save(make_model(nodes, {}), tmp_path / "m_ctx.onnx")
    log = [
        "[I:onnxruntime:, qnn.cc:10 Start] nothing of interest",
        "[W:onnxruntime:, qnn.cc:99 Validate] norm_1 failed validation, error code 3110",
    ]
    found = read_delegation(tmp_path / "m_ctx.onnx", log)
    assert (found.delegated, len(found.non_delegated)) == (1, 2)
    assert [(x.operator, x.name, x.reason) for x in found.non_delegated] == [
        ("LayerNormalization", "norm_1", "norm_1 failed validation, error code 3110"),
        ("NonZero", "other", "the QNN provider gives no reason"),
    ]


def test_whole_graph_leaves_nothing_outside(tmp_path: Path) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], name="whole", domain="com.microsoft")
    onnx.save(make_model([node], {}), tmp_path / "m_ctx.onnx")
    found = read_delegation(tmp_path / "m_ctx.onnx")
    assert (found.delegated, found.non_delegated) == (1, ())


def test_missing_compiler_is_an_error_of_the_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def register(ort: object) -> None:
        raise BackendError("no provider; run: pip install onnxruntime-qnn")

    monkeypatch.setattr(snapdragon, "register", register)
    chip = find_chipset("sm8550").chip
    with pytest.raises(TargetUnavailableError, match="pip install onnxruntime-qnn"):
        compile_context(tmp_path / "m.onnx", tmp_path / "m_ctx.onnx", chip, float16=True)


def test_the_compiler_is_told_the_on_chip_memory_of_chips_that_are_known() -> None:
    qnn = pytest.importorskip("onnxruntime_qnn")
    assert compiler_options(qnn, find_chipset("sm8650").chip)["vtcm_mb"] == "8"
    unknown = Chip(slug="sm9999", htp_arch=99, soc_model=999)
    assert "vtcm_mb" not in compiler_options(qnn, unknown)


@pytest.mark.qnn
def test_small_graph_is_compiled_whole(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn")
    model = make_model([helper.make_node("Sigmoid", ["x"], ["y"], name="gate")], {})
    onnx.save(model, tmp_path / "m.onnx")
    target = tmp_path / "m_ctx.onnx"
    found = compile_context(tmp_path / "m.onnx", target, find_chipset("sm8550").chip, float16=True)
    assert (found.delegated, len(found.non_delegated)) == (1, 0)
    assert len(list(tmp_path.glob("*.bin"))) == 1


@pytest.mark.qnn
def test_operator_that_the_compiler_does_not_take_is_named_with_a_reason(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn")
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"], name="gate"),
        helper.make_node("NonZero", ["s"], ["y"], name="positions"),
    ]
    model = make_model(nodes, {}, output_type=TensorProto.INT64, shape=(2, "N"))
    onnx.save(model, tmp_path / "m.onnx")
    target = tmp_path / "m_ctx.onnx"
    found = compile_context(tmp_path / "m.onnx", target, find_chipset("sm8550").chip, float16=True)
    assert (found.delegated, len(found.non_delegated)) == (1, 1)
    assert [(x.operator, x.name) for x in found.non_delegated] == [("NonZero", "positions")]
    assert found.non_delegated[0].reason


@pytest.mark.qnn
def test_graph_of_which_the_compiler_takes_nothing_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn")
    node = helper.make_node("NonZero", ["x"], ["y"], name="positions")
    model = make_model([node], {}, output_type=TensorProto.INT64, shape=(2, "N"))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedOpError, match=r"compiler .* m for sm8550.*precision$"):
        compile_context(
            tmp_path / "m.onnx",
            tmp_path / "m_ctx.onnx",
            find_chipset("sm8550").chip,
            float16=True,
        )
