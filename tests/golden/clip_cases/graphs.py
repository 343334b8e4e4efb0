"""Graphs of a few nodes, each with a function of numpy that gives the same numbers to the bit.

The operators are exact in float32 on every runtime, or rounded once: what is added and multiplied
is rounded as IEEE 754 says, the rest only moves numbers. So whatever runs the graphs, a clip made
with them has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPSET, IR = 21, 10
CHANNELS = 12
Array = NDArray[Any]
Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]
f32 = np.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """An input or output as a manifest has it, and as the graph stores it."""

    shape: tuple[int, ...]
    type: str = "real"
    dtype: str = "float32"
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An operator: its type, what it takes, the one thing that it gives, its attributes."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A graph, and the function that does the same."""

    inputs: Mapping[str, Border]
    outputs: Mapping[str, Border]
    nodes: Sequence[Node]
    constants: Mapping[str, Array]
    function: Function

    def to_onnx(self) -> bytes:
        """Return it as an ONNX file."""
        from onnx import TensorProto, helper, numpy_helper

        def infos(side: Mapping[str, Border]) -> list[Any]:
            return [
                helper.make_tensor_value_info(
                    name, TensorProto.DataType.Value(onnx_name(item.dtype)), item.shape
                )
                for name, item in side.items()
            ]

        nodes = [
            helper.make_node(node.op, list(node.inputs), [node.output], **node.attributes)
            for node in self.nodes
        ]
        constants = [numpy_helper.from_array(x, name) for name, x in self.constants.items()]
        graph = helper.make_graph(nodes, "g", infos(self.inputs), infos(self.outputs), constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR
        )
        return model.SerializeToString()


def onnx_name(dtype: str) -> str:
    """Return what ONNX calls a type."""
    return "FLOAT" if dtype == "float32" else dtype.upper()


def node(op: str, inputs: str, output: str, **attributes: Any) -> Node:
    """Return an operator whose inputs are written in one text."""
    return Node(op=op, inputs=tuple(inputs.split()), output=output, attributes=attributes)


def cast(source: str, output: str, dtype: str) -> Node:
    """Return the operator that changes the type."""
    kinds = {"float32": 1, "uint8": 2, "uint16": 4, "int32": 6, "int64": 7, "float16": 10}
    return node("Cast", source, output, to=kinds[dtype])


def places(*values: int) -> Array:
    """Return whole numbers as operators take them."""
    return np.array(values, np.int64)
