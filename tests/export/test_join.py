"""Joining the models of parts into one, and the names inside of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("torch")

from part_models import make_model, run_model

from mvsdk_export.graphs.join import join_models
from mvsdk_export.graphs.onnx import OPSET_VERSION
from mvsdk_export.graphs.renaming import rename_values

pytestmark = pytest.mark.torch


def write_part(
    path: Path, takes: str, gives: str, constant: float, opset_version: int = OPSET_VERSION
) -> Path:
    """Write -(takes + constant); inside, all parts have the same names."""
    nodes = [
        helper.make_node("Add", [takes, "w"], ["t"], "add"),
        helper.make_node("Neg", ["t"], [gives], "negate"),
    ]
    model = make_model(
        nodes,
        {"w": np.full((1, 8), constant, np.float32)},
        inputs={takes: (1, 8)},
        outputs={gives: (1, 8)},
    )
    model.opset_import[0].version = opset_version
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 8))
        for name in (takes, "t", "removed")
    )
    onnx.save(model, path)
    return path


def test_names_inside_parts_are_kept_apart(tmp_path: Path) -> None:
    parts = [
        write_part(tmp_path / "a.onnx", "x", "h", 1.0),
        write_part(tmp_path / "b.onnx", "h", "y", 2.0),
    ]
    join_models(parts, tmp_path / "joined.onnx", outputs=["y"])
    x = np.arange(8, dtype=np.float32)[None]
    assert (run_model(tmp_path / "joined.onnx", {"x": x})["y"] == x - 1).all()
    graph = onnx.load(tmp_path / "joined.onnx").graph
    assert [node.name for node in graph.node] == [
        *("part_0/add", "part_0/negate"),
        *("part_1/add", "part_1/negate"),
    ]
    assert [tensor.name for tensor in graph.initializer] == ["part_0/w", "part_1/w"]
    assert sorted(x.name for x in graph.value_info) == ["h", "part_0/t", "part_1/t"]


def test_whole_has_the_newest_operators_of_its_parts(tmp_path: Path) -> None:
    parts = [
        write_part(tmp_path / "a.onnx", "x", "h", 1.0, OPSET_VERSION),
        write_part(tmp_path / "b.onnx", "h", "y", 2.0, OPSET_VERSION - 1),
    ]
    join_models(parts, tmp_path / "joined.onnx", outputs=["y"])
    (opset,) = onnx.load(tmp_path / "joined.onnx").opset_import
    assert opset.version == OPSET_VERSION


def test_names_change_inside_branches_too() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["t"], ["u"])],
        "branch",
        [],
        [helper.make_tensor_value_info("u", TensorProto.FLOAT, (1, 8))],
    )
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    rename_values([node], {"yes": "no", "t": "T", "u": "U", "y": "Y"})
    assert (list(node.input), list(node.output)) == (["no"], ["Y"])
    for attribute in node.attribute:
        (inner,) = attribute.g.node
        assert (list(inner.input), list(inner.output)) == (["T"], ["U"])
        assert [value.name for value in attribute.g.output] == ["U"]
