"""Ranges of activations: the extremes that a model's values have over some inputs.

ONNX Runtime's own calibrator does the same, in a time that grows with the square of the number of
operators: for 2400 activations it took 24 s to make the graph that is run, and all of this 1 s.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from mvsdk_export.jobs.progress import counted
from mvsdk_export.quantize.activations import Feed

Range = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Lowest and highest, (1,) each."""

_FLAT = "mvsdk/flat"
_KINDS = ("ReduceMin", "ReduceMax")


def _is_external(path: Path) -> bool:
    """Return whether weights of a model lie in a file beside it."""
    graph = onnx.load(path, load_external_data=False).graph
    return any(uses_external_data(tensor) for tensor in graph.initializer)


def measure_ranges(source: Path, feeds: Sequence[Feed], kinds: Collection[str]) -> dict[str, Range]:
    """Return the extremes of every activation that some operators read or write.

    Args:
        source: Float32 model of fixed shapes.
        feeds: Inputs, by name.
        kinds: Types of the operators.

    Returns:
        Name of a value -> its extremes over all feeds.
    """
    model = load_model_with_shape_infer(source)
    names = _activations(model.graph, frozenset(kinds))
    outputs = _add_reductions(model, names)
    with tempfile.TemporaryDirectory() as folder:
        augmented = Path(folder) / "augmented.onnx"
        onnx.save(model, augmented, save_as_external_data=_is_external(source))
        del model
        session = _sparing_session(augmented)
        found: dict[str, NDArray[Any]] = {}
        for feed in counted(feeds, "inputs"):
            values = map(np.asarray, session.run(outputs, dict(feed)))
            for output, value in zip(outputs, values, strict=True):
                extreme = np.fmin if output.endswith(_KINDS[0]) else np.fmax
                found[output] = extreme(found.get(output, value), value)
    return {name: (found[_name(name, _KINDS[0])], found[_name(name, _KINDS[1])]) for name in names}


def _activations(graph: onnx.GraphProto, kinds: Collection[str]) -> list[str]:
    """Return the floating-point values of operators, without constants, in order."""
    values = (*graph.value_info, *graph.output, *graph.input)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    floats = {name for name, kind in types.items() if kind == TensorProto.FLOAT}
    floats -= {tensor.name for tensor in graph.initializer}
    names = (x for node in graph.node if node.op_type in kinds for x in (*node.input, *node.output))
    return list(dict.fromkeys(name for name in names if name in floats))


def _add_reductions(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Have a model give the extremes of values; return the names of these outputs."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), _FLAT))
    left = dict.fromkeys(names)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for name in node.input:  # before the first reader: the value is there, and soon let go
            if name in left:
                del left[name]
                nodes += _reductions(name)
        nodes.append(node)
    for name in left:
        nodes += _reductions(name)
    del graph.node[:]
    graph.node.extend(nodes)
    outputs = [_name(name, kind) for name in names for kind in _KINDS]
    graph.output.extend(helper.make_tensor_value_info(x, TensorProto.FLOAT, [1]) for x in outputs)
    return outputs


def _reductions(name: str) -> Iterator[onnx.NodeProto]:
    for kind in _KINDS:
        output = _name(name, kind)
        between = f"{output}/kept"  # a reduction of an empty axis has to keep it
        yield helper.make_node(kind, [name], [between], name=between, keepdims=1)
        yield helper.make_node("Reshape", [between, _FLAT], [output], name=output)


def _name(name: str, kind: str) -> str:
    return f"{name}/mvsdk/{kind}"


def _sparing_session(path: Path) -> ort.InferenceSession:
    """Open a model with a reduction behind every activation, for little memory.

    In the usual order the session keeps every activation until all have been reduced: more than
    11 GiB for a part of 0.6 GB of weights, and 3.2 GiB so (docs/npu_forms.md).
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
