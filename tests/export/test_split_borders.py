"""What crosses between the parts of a model: integers that mean the same, or float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("torch")

from part_models import Arrays, Borders, as_integers, as_numbers, halve_parts, make_model, run_model

from mvsdk_export.graphs.onnx import quantize_signature
from mvsdk_export.graphs.split import agree_float16, agree_quantized, crossing_values, split_model
from mvsdk_export.parity.verify import sqnr_db

pytestmark = pytest.mark.torch


def test_quantised_parts_hand_over_integers_that_mean_the_same(
    hourglass: Path,
    hourglass_feeds: list[Arrays],
    hourglass_w8a16: tuple[list[Path], Borders],
) -> None:
    models, borders = hourglass_w8a16
    values: Arrays = as_integers(hourglass_feeds[0], borders)
    for path in models:
        graph = onnx.load(path).graph
        kinds = {x.type.tensor_type.elem_type for x in [*graph.input, *graph.output]}
        assert kinds == {TensorProto.UINT16}
        values |= run_model(path, values)
    found = as_numbers(values["model_output"], *borders["model_output"])
    assert sqnr_db(found, run_model(hourglass, hourglass_feeds[0])["model_output"]) > 35


def make_reader(scale: float, zero_point: int) -> onnx.ModelProto:
    """Return x -> quantise -> dequantise -> y."""
    constants = {"s": np.array(scale, np.float32), "z": np.array(zero_point, np.uint16)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return make_model(nodes, constants, outputs={"y": (1, 8)})


def test_reader_with_the_scale_of_the_maker_takes_its_integers_as_they_are() -> None:
    model = make_reader(0.5, 100)
    agree_quantized(model, {"x": (0.5, 100)})
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear"]
    x = np.arange(96, 104, dtype=np.uint16)[None]
    assert run_model(model, {"x": x})["y"].tolist() == [[-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5]]


@pytest.mark.parametrize(
    ("made", "taken"),
    [
        ((0.25, 7), [100, 100, 101, 102, 102, 102, 103, 104]),
        ((0.5, 7), [100, 101, 102, 103, 104, 105, 106, 107]),
    ],
)
def test_reader_with_another_scale_or_zero_point_requantises(
    made: tuple[float, int], taken: list[int]
) -> None:
    model = make_reader(0.5, 100)
    agree_quantized(model, {"x": made})
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["DequantizeLinear", "QuantizeLinear", "DequantizeLinear"]
    assert quantize_signature(model).keys() == {"y"}
    x = np.arange(7, 15, dtype=np.uint16)[None]
    assert run_model(model, {"x": x})["y"].tolist() == [taken]


def test_border_that_an_earlier_part_left_in_floating_point_stays_so() -> None:
    model = make_reader(0.5, 7)
    assert quantize_signature(model, keep={"x"}) == {"y": (0.5, 7)}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_value_with_a_reader_that_does_not_quantise_it_is_dequantised_for_all() -> None:
    model = make_reader(0.5, 100)
    model.graph.node.append(helper.make_node("Relu", ["x"], ["r"]))
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, (1, 8)))
    agree_quantized(model, {"x": (0.5, 100)})
    found = run_model(model, {"x": np.arange(97, 105, dtype=np.uint16)[None]})
    assert found["r"].tolist() == [[0, 0, 0, 0, 0.5, 1, 1.5, 2]]


def test_float16_parts_hand_over_float16(
    hourglass: Path, hourglass_feeds: list[Arrays], tmp_path: Path
) -> None:
    parts = split_model(hourglass, tmp_path, parts=3, most_bytes=1 << 30)
    values = hourglass_feeds[0]
    for path in halve_parts(parts, tmp_path / "fp16"):
        values = values | run_model(path, values)
    assert {values[name].dtype for name in crossing_values(parts)} == {np.dtype(np.float16)}
    assert values["model_output"].dtype == np.float32
    wanted = run_model(hourglass, hourglass_feeds[0])["model_output"]
    assert sqnr_db(values["model_output"], wanted) > 45


F16, F32 = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(
            [
                helper.make_node("Relu", ["x"], ["h"]),
                helper.make_node("Neg", ["h"], ["y"]),
            ],
            id="float32 throughout",
        ),
        pytest.param(
            [
                helper.make_node("Cast", ["x"], ["a"], to=F16),
                helper.make_node("Relu", ["a"], ["b"]),
                helper.make_node("Cast", ["b"], ["h"], to=F32),
                helper.make_node("Neg", ["h"], ["y"]),
            ],
            id="the part itself reads what it gives",
        ),
        pytest.param(
            [
                helper.make_node("Cast", ["x"], ["a"], to=F16),
                helper.make_node("Relu", ["a"], ["b"]),
                helper.make_node("Cast", ["b"], ["h"], to=F32),
                helper.make_node("Neg", ["x"], ["c"]),
                helper.make_node("Min", ["c", "zero"], ["y"]),
            ],
            id="one of two readers wants float16",
        ),
    ],
)
def test_part_that_computes_in_float32_at_its_border_casts_what_crosses(
    nodes: list[onnx.NodeProto],
) -> None:
    zero = {"zero": np.array(0, np.float32)}
    model = make_model(nodes, zero, outputs={"h": (1, 8), "y": (1, 8)})
    agree_float16(model, {"x", "h"})
    found = run_model(model, {"x": np.arange(-4, 4, dtype=np.float16)[None]})
    assert (found["h"].dtype, found["y"].dtype) == (np.float16, np.float32)
    assert found["h"].tolist() == [[0, 0, 0, 0, 0, 1, 2, 3]]
    assert (found["y"] == -found["h"]).all()
