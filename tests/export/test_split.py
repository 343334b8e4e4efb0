"""Cutting a model into consecutive parts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("torch")

from part_models import CHANNELS, FRAMES, INPUTS, SIZE, Arrays, make_model, run_model, run_parts

from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.split import crossing_values, split_model

pytestmark = pytest.mark.torch


def to_external(source: Path, folder: Path) -> Path:
    """Write a model with every constant of some size in a file beside it."""
    onnx.save(
        onnx.load(source),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=256,
    )
    return folder / "model.onnx"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("external", [False, True], ids=["inline", "external"])
def test_parts_in_sequence_compute_exactly_what_the_whole_does(
    hourglass: Path, hourglass_feeds: list[Arrays], tmp_path: Path, count: int, external: bool
) -> None:
    source = to_external(hourglass, tmp_path) if external else hourglass
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split_model(source, folder, parts=count, most_bytes=1 << 30)
    assert len(parts) == count
    for part in parts:
        onnx.checker.check_model(str(part.path), full_check=True)
    found = run_parts(parts, hourglass_feeds[0])["model_output"]
    assert (found == run_model(hourglass, hourglass_feeds[0])["model_output"]).all()
    nodes = len(onnx.load(hourglass).graph.node)
    assert sum(part.nodes for part in parts) == nodes


def test_skip_connections_go_past_the_parts_between(hourglass: Path, tmp_path: Path) -> None:
    parts = split_model(hourglass, tmp_path, parts=4, most_bytes=1 << 30)
    inner = crossing_values(parts)
    assert set(parts[0].inputs) <= set(INPUTS)
    assert parts[-1].outputs == ("model_output",)
    passed = [x for x in parts[0].outputs if x not in parts[1].inputs]
    assert passed
    assert inner == {name for part in parts[:-1] for name in part.outputs}
    assert all(name not in parts[1].outputs for name in passed)


def test_parts_have_about_equal_weights_and_few_bytes_cross(
    hourglass: Path, tmp_path: Path
) -> None:
    parts = split_model(hourglass, tmp_path, parts=2, most_bytes=1 << 30)
    total = sum(part.weight_bytes for part in parts)
    assert all(0.35 < part.weight_bytes / total < 0.65 for part in parts)
    shapes = {x.name: x for x in onnx.load(parts[0].path).graph.output}
    sizes = [[d.dim_value for d in x.type.tensor_type.shape.dim] for x in shapes.values()]
    # the residual stream and the two skips; not what an attention or a normalisation has inside
    assert sorted(np.prod(sizes, axis=1)) <= [FRAMES * CHANNELS * SIZE * SIZE] * 3


def test_fewest_parts_below_the_limit_are_taken(hourglass: Path, tmp_path: Path) -> None:
    (whole,) = split_model(hourglass, tmp_path, most_bytes=1 << 30)
    parts = split_model(hourglass, tmp_path, most_bytes=int(whole.weight_bytes / 2.5))
    assert len(parts) == 3
    assert all(part.weight_bytes <= whole.weight_bytes / 2.5 for part in parts)


def test_limit_that_a_single_layer_exceeds_is_refused(hourglass: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"any number of parts of at most 0 MiB"):
        split_model(hourglass, tmp_path, most_bytes=1000)
    with pytest.raises(ExportError, match=r"into 2 parts of at most 0 MiB: it has \d+ MiB in"):
        split_model(hourglass, tmp_path, parts=2, most_bytes=50_000)


def test_constants_of_several_parts_are_copied_and_so_is_what_is_computed_from_them(
    tmp_path: Path,
) -> None:
    weights = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], "constant"),
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "wt"], ["b"], "second"),
        helper.make_node("MatMul", ["b", "w"], ["c"], "third"),
        helper.make_node("MatMul", ["c", "wt"], ["y"], "fourth"),
    ]
    source = tmp_path / "m.onnx"
    onnx.save(make_model(nodes, {"w": weights}, outputs={"y": (1, 8), "b": (1, 8)}), source)
    parts = split_model(source, tmp_path, parts=3, most_bytes=1 << 20)
    assert [part.weight_bytes for part in parts] == [weights.nbytes] * 3
    assert {"y", "b"} <= {name for part in parts for name in part.outputs}
    values = {"x": np.ones((1, 8), np.float32)}
    found, wanted = run_parts(parts, values), run_model(source, values)
    assert (found["y"] == wanted["y"]).all()
    assert (found["b"] == wanted["b"]).all()
    with pytest.raises(ExportError, match="cannot be cut"):
        split_model(source, tmp_path, most_bytes=weights.nbytes - 1)


def test_constants_that_are_nodes_are_copied_too(tmp_path: Path) -> None:
    value = helper.make_tensor("value", TensorProto.FLOAT, (1, 8), range(8))
    nodes = [
        helper.make_node("Constant", [], ["k"], "constant", value=value),
        helper.make_node("Mul", ["x", "k"], ["a"], "first"),
        helper.make_node("Add", ["a", "k"], ["y"], "second"),
    ]
    source = tmp_path / "m.onnx"
    onnx.save(make_model(nodes, {}, outputs={"y": (1, 8)}), source)
    parts = split_model(source, tmp_path, parts=2, most_bytes=1 << 20)
    assert [part.outputs for part in parts] == [("a",), ("y",)]
    values = {"x": np.ones((1, 8), np.float32)}
    assert run_parts(parts, values)["y"].tolist() == [[2 * k for k in range(8)]]


def test_what_branches_read_crosses(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 8)) for name in "uv"]
    then = [helper.make_node("Neg", ["h"], ["n"]), helper.make_node("Exp", ["n"], ["u"])]
    branches: dict[str, Any] = {
        "then_branch": helper.make_graph(then, "then", [], values[:1]),
        "else_branch": helper.make_graph(
            [helper.make_node("Abs", ["h"], ["v"])], "else", [], values[1:]
        ),
    }
    nodes = [
        helper.make_node("Sin", ["x"], ["h"], "first"),
        helper.make_node("If", ["yes"], ["y"], "second", **branches),
    ]
    source = tmp_path / "m.onnx"
    onnx.save(make_model(nodes, {"yes": np.array(True)}, outputs={"y": (1, 8)}), source)
    parts = split_model(source, tmp_path, parts=2, most_bytes=1 << 20)
    assert [part.inputs for part in parts] == [("x",), ("h",)]
    feeds = {"x": np.ones((1, 8), np.float32)}
    assert (run_parts(parts, feeds)["y"] == run_model(source, feeds)["y"]).all()


def test_parts_of_a_network_that_runs_twice_share_no_weights(tmp_path: Path) -> None:
    """Except what all of its layers read."""
    weights = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)
    constants = {f"w{index}": weight for index, weight in enumerate(weights[:4])}
    constants["mix"] = weights[4, :2]
    nodes = [helper.make_node("Neg", ["x"], ["b0"], "other")]
    for run_of, first in (("a", "x"), ("b", "b0")):
        values = [first, *(f"{run_of}{index + 1}" for index in range(4))]
        for index, (x, y) in enumerate(itertools.pairwise(values)):
            nodes += [
                helper.make_node("MatMul", [x, f"w{index}"], [f"{y}/product"], f"{y}/product"),
                helper.make_node(
                    "Gemm", [f"{y}/product", "mix"], [f"{y}/mixed"], f"{y}/mix", transB=1
                ),
                helper.make_node("Gemm", [f"{y}/mixed", "mix"], [y], f"{y}/node"),
            ]
    nodes.append(helper.make_node("Sub", ["a4", "b4"], ["y"], "difference"))
    source = tmp_path / "m.onnx"
    onnx.save(make_model(nodes, constants, outputs={"y": (1, 8)}), source)
    parts = split_model(source, tmp_path, parts=4, most_bytes=1 << 20)
    assert all(part.weight_bytes <= (8 + 2) * 8 * 4 for part in parts)
    assert all(len(part.outputs) == 2 for part in parts[:-1])
    found = {"x": np.ones((1, 8), np.float32)}
    assert (run_parts(parts, found)["y"] == run_model(source, found)["y"]).all()


def test_value_of_unknown_shape_cannot_cross(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], "positions"),
        helper.make_node("Cast", ["a"], ["y"], "numbers", to=TensorProto.FLOAT),
    ]
    source = tmp_path / "m.onnx"
    onnx.save(make_model(nodes, {}, outputs={"y": (2, "N")}), source)
    with pytest.raises(ExportError, match=r"shape of 'a' is not known; export it with fixed"):
        split_model(source, tmp_path, parts=2, most_bytes=1 << 20)


def test_damaged_weights_are_an_error(hourglass: Path, tmp_path: Path) -> None:
    source = to_external(hourglass, tmp_path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"weights\.bin ends inside the constant .* 100 bytes"):
        split_model(source, tmp_path, parts=2, most_bytes=1 << 30)
