"""Equal constants of a graph are there once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch
from torch import nn

from mvsdk_export.graphs.onnx import export_onnx
from mvsdk_export.graphs.sharing import share_constants_
from mvsdk_export.layers.blocks import GroupNorm
from mvsdk_export.layers.selection import select_implementations_

pytestmark = pytest.mark.torch

SIZE = 64


def model_of(*tensors: ir.TensorProtocol) -> ir.Model:
    """Return a graph with a node for each constant."""
    nodes: list[ir.Node] = []
    values: list[ir.Value] = []
    for index, tensor in enumerate(tensors):
        value = ir.Value(name=f"c{index}", const_value=tensor)
        values.append(value)
        nodes.append(ir.node("Identity", [value]))
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([], outputs, nodes=nodes, initializers=values, opset_imports={"": 21})
    return ir.Model(graph, ir_version=10)


def kept(*arrays: NDArray[np.generic]) -> list[str | None]:
    """Return the name of the constant that each node reads in the end."""
    model = model_of(*(ir.Tensor(array) for array in arrays))
    share_constants_(model)
    found = [node.inputs[0].name for node in model.graph if node.inputs[0] is not None]
    assert set(model.graph.initializers) == set(found)
    return found


def test_constants_of_any_size_and_layout_are_shared() -> None:
    large = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    ones = np.broadcast_to(np.float32(1), (SIZE * SIZE,))
    found = kept(large.T, ones, large.T.copy(), ones.copy(), np.ones(2), np.ones(2))
    assert found == ["c0", "c1", "c0", "c1", "c4", "c4"]


def test_constants_that_differ_in_a_bit_a_type_or_a_shape_stay_apart() -> None:
    zeros = np.zeros(SIZE, np.float32)
    others = (-zeros, zeros.astype(np.int32), zeros.reshape(8, 8))
    assert kept(zeros, *others) == ["c0", "c1", "c2", "c3"]
    nan = np.full(SIZE, np.nan, np.float32)
    assert kept(nan, nan.copy()) == ["c0", "c0"]


def test_constant_like_no_other_is_not_read() -> None:
    def fail() -> ir.Tensor:
        pytest.fail("its bytes were wanted")

    shape = ir.Shape((SIZE, SIZE))
    unread = ir.LazyTensor(fail, dtype=ir.DataType.FLOAT, shape=shape, name="c0")
    share_constants_(model_of(unread, ir.Tensor(np.ones(SIZE, np.float32))))


def test_norms_of_one_shape_share_their_ones(tmp_path: Path) -> None:
    network = nn.Sequential(*(GroupNorm(2, 16) for _ in range(3))).eval()
    for index, norm in enumerate(network):
        nn.init.constant_(norm.weight, index + 1.0)  # pyright: ignore
    x = torch.randn(1, 16, 16, 16)
    with torch.no_grad():
        want = network(x).numpy()
        select_implementations_(network, "htp")
        export_onnx(network, {"x": x}, ["y"], tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert sum(np.prod(tensor.dims) == 8 * 16 * 16 for tensor in graph.initializer) == 1
    assert sum(node.op_type == "LayerNormalization" for node in graph.node) == 3
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": x.numpy()})
    assert np.abs(np.asarray(found) - want).max() < 1e-5
