"""Models that phones open: IR version 10 and opset 21, whatever wrote them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

torch = pytest.importorskip("torch")

from mvsdk_export.graphs.onnx import (  # noqa: E402
    IR_VERSION,
    OPSET_VERSION,
    convert_float16,
    export_onnx,
    save_model,
)
from mvsdk_export.targets.snapdragon.compiler import make_portable  # noqa: E402


def test_exported_models_open_in_runtimes_of_phones(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU())
    path, half = tmp_path / "model.onnx", tmp_path / "half.onnx"
    export_onnx(network, {"x": torch.zeros(1, 4)}, ["y"], path)
    save_model(convert_float16(onnx.load(path)), half)
    for written in (path, half):
        model = onnx.load(written)
        assert model.ir_version == IR_VERSION == 10
        assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET_VERSION)]
    assert OPSET_VERSION == 21


def test_context_models_say_no_more_than_they_need(tmp_path: Path) -> None:
    path = tmp_path / "model_ctx.onnx"
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([node], "ctx", [value], [result]), ir_version=13)
    del model.opset_import[:]
    for domain, version in (("", 21), ("com.microsoft", 1), ("ai.onnx.ml", 5)):
        model.opset_import.add(domain=domain, version=version)
    onnx.save(model, path)
    make_portable(path)
    made = onnx.load(path)
    assert made.ir_version == 10
    assert [item.domain for item in made.opset_import] == ["", "com.microsoft"]
    assert made.graph == model.graph
