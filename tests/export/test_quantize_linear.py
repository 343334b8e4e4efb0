"""What quantisation does in linear time, held to ONNX Runtime's own ways of doing it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.onnx_model import ONNXModel
from test_quantize import FEEDS, write_model

from mvsdk_export.quantize import qdq
from mvsdk_export.quantize.activations import Feed
from mvsdk_export.quantize.indexed_model import IndexedModel
from mvsdk_export.quantize.qdq import quantize_w8a16
from mvsdk_export.quantize.ranges import measure_ranges

pytestmark = pytest.mark.torch

KINDS = ("LayerNormalization", "Conv")


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return dict(feed) if (feed := next(self._feeds, None)) else None


def test_ranges_are_those_of_onnx_runtimes_calibrator(tmp_path: Path) -> None:
    source = write_model(tmp_path / "model.onnx")
    calibrator = create_calibrator(source, KINDS, str(tmp_path / "augmented.onnx"))
    calibrator.collect_data(_Reader(FEEDS))
    wanted = {name: data.range_value for name, data in calibrator.compute_data().items()}
    found = measure_ranges(source, FEEDS, KINDS)
    assert found.keys() == wanted.keys() == {"x", "n", "y"}
    for name, (lowest, highest) in found.items():
        assert (lowest, highest) == tuple(wanted[name]), name
        assert (lowest.dtype, lowest.shape) == (wanted[name][0].dtype, wanted[name][0].shape)


def test_a_value_that_only_other_operators_touch_has_no_range(tmp_path: Path) -> None:
    found = measure_ranges(write_model(tmp_path / "model.onnx"), FEEDS, ("Conv",))
    assert found.keys() == {"n", "y"}


def test_indices_change_no_byte_of_a_quantised_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(tmp_path / "model.onnx")
    quantize_w8a16(source, tmp_path / "indexed.onnx", FEEDS, split_last=True)
    monkeypatch.setattr(qdq, "IndexedModel", ONNXModel)
    quantize_w8a16(source, tmp_path / "plain.onnx", FEEDS, split_last=True)
    assert (tmp_path / "indexed.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()


def _graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Add", ["x", "x"], ["a"], name="first"),
        helper.make_node("Mul", ["x", "c"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["y"], name="third"),
    ]
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [value("x", TensorProto.FLOAT, [1])],
            [value("y", TensorProto.FLOAT, [1])],
            [numpy_helper.from_array(np.float32([2]), "c")],
        )
    )


def _change(model: ONNXModel) -> onnx.ModelProto:
    """Do what a quantiser does, in an order in which a stale index would be noticed."""
    model.replace_input_of_nodes("x", "p", {"first"})
    model.replace_input_of_all_nodes("p", "q")
    model.add_node(helper.make_node("Neg", ["q"], ["z"], name="fourth"))
    model.replace_input_of_all_nodes("x", "r")
    model.replace_input_of_all_nodes("q", "s")
    tensor = numpy_helper.from_array(np.float32([3]), "d")
    model.add_initializer(tensor)
    model.add_initializer(tensor)
    model.initializer_extend([numpy_helper.from_array(np.float32([4]), "e")])
    assert model.get_initializer("e") is not None
    model.remove_initializer(model.get_initializer("d"))
    assert model.get_initializer("d") is None
    model.remove_nodes([node for node in model.model.graph.node if node.name == "second"])
    model.replace_input_of_all_nodes("s", "t")
    return model.model


def test_an_indexed_model_changes_as_the_plain_one_does() -> None:
    found, wanted = _change(IndexedModel(_graph())), _change(ONNXModel(_graph()))
    assert found == wanted
    assert [list(node.input) for node in found.graph.node] == [["t", "t"], ["a", "b"], ["t"]]
