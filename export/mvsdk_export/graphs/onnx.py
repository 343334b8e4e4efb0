"""Lowering to ONNX: the first stage of every target that reads ONNX, and a target of its own."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import helper, numpy_helper
from onnx_ir.passes import common as passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules
from torch import Tensor, nn

from mvsdk.manifest import DType, TensorSpec
from mvsdk_export.graphs.renaming import rename_values
from mvsdk_export.graphs.sharing import share_constants_
from mvsdk_export.quiet import quiet

IR_VERSION = 10
"""The newest that runtimes of phones and of Debian open."""
OPSET_VERSION = 21
"""The first with 16-bit quantisation operators of ONNX's own."""

EXTERNAL_DATA_BYTES = 1 << 30
"""Weights above this go to a file beside the model: protobuf stops at 2 GiB."""

_NO_LIMIT = 1 << 40

RULES = (
    rules.mul_by_1_rule,
    rules.div_by_1_rule,
    rules.add_0_rule,
    rules.sub_0_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.flatten_to_reshape_rule,
    rules.reshape_reshape_rule,
    rules.materialize_reshape_shape_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.min_min_rule,
    rules.max_max_rule,
    rules.min_max_rule,
    rules.max_min_rule,
    rules.fuse_pad_into_conv_rule,
    rules.normalize_pad_format_conv_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_gemm_rule,
)
"""What simplifies a traced graph. Two rules that onnxscript 0.7.2 has beside them are left out: one
takes reshapes around a product away where shapes fit without them, whatever their numbers mean;
another looks at every pair of slices for every node, minutes where attention over frames is
unrolled."""

_DTYPES: dict[int, DType] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT16: "int16",
}


def export_onnx(
    network: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path
) -> None:
    """Trace a network to a float32 ONNX model of fixed shapes.

    Constants are folded without the usual size limits: a weight that is sliced or reshaped in the
    graph would otherwise be quantised as an activation, 16 bits wide, and cost an HTP compiler
    ten times as long (docs/npu_forms.md).

    Args:
        network: Network in evaluation mode.
        inputs: Example of every input, in the order of `forward`.
        outputs: Names of the outputs.
        path: File to write.
    """
    with quiet():
        program = torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET_VERSION,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    _optimize(program.model)
    program.save(str(path), external_data=_weight_bytes(network) > EXTERNAL_DATA_BYTES)
    strip_metadata(path)


def _optimize(model: ir.Model) -> None:
    """Fold constants of any size and take out operators that do nothing, in place."""
    for _ in range(2):  # folding gives rules more to see, and they give folding more
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_NO_LIMIT,
            output_size_limit=_NO_LIMIT,
        )
        rewriter.rewrite(model, RULES)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    share_constants_(model)
    for tidy in (
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)


def strip_metadata(path: Path) -> None:
    """Remove what the tracer notes about the machine: stack traces with file paths.

    Weights in a file beside the model stay there, unread.
    """
    model = onnx.load(path, load_external_data=False)
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, path)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; large weights go to a file beside it, and replace one that is there."""
    data = path.with_suffix(".data")
    data.unlink(missing_ok=True)  # ONNX would append to it
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > EXTERNAL_DATA_BYTES:
        onnx.save(model, path, save_as_external_data=True, location=data.name)
    else:
        onnx.save(model, path)


def convert_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 model in float16 with float32 borders."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reports every weight below float16's smallest number
        converted = cast("onnx.ModelProto", convert_float_to_float16(model, keep_io_types=True))
    _drop_doubles(converted.graph)
    return converted


def _drop_doubles(graph: onnx.GraphProto) -> None:
    """Remove nodes that are there twice: a value that two operators need in float32 is cast twice.

    The converter gives both casts one name and one result, which ONNX forbids.
    """
    seen: set[bytes] = set()
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        content = node.SerializeToString(deterministic=True)
        if content not in seen:
            graph.node.append(node)
        seen.add(content)


def prepend_byte_input(model: onnx.ModelProto, name: str) -> None:
    """Take an input in [0, 1] as bytes: `x / 255` of uint8, inside the graph.

    `DequantizeLinear` does it in one operator, which every NPU compiler has.
    """
    inner, constants = _put_inside(model.graph, name)
    node = helper.make_node("DequantizeLinear", [name, *constants], [inner], f"{name}_bytes")
    model.graph.node.insert(0, node)
    source = next(x for x in model.graph.input if x.name == name)
    source.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def append_byte_output(model: onnx.ModelProto, name: str) -> None:
    """Round an output in [0, 1] to bytes inside the graph: `round(255 x)`, uint8.

    `QuantizeLinear` rounds and saturates in one operator, which every NPU compiler has.
    """
    inner, constants = _put_inside(model.graph, name)
    node = helper.make_node("QuantizeLinear", [inner, *constants], [name], f"{name}_bytes")
    model.graph.node.append(node)
    output = next(x for x in model.graph.output if x.name == name)
    output.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _put_inside(graph: onnx.GraphProto, name: str) -> tuple[str, list[str]]:
    """Let a border's number have another name, beside the constants that make it a byte."""
    inner = f"{name}_float"
    rename_values(graph.node, {name: inner})
    constants = {
        f"{name}_byte_scale": np.array(1 / 255, np.float32),
        f"{name}_byte_zero_point": np.array(0, np.uint8),
    }
    graph.initializer.extend(numpy_helper.from_array(x, key) for key, x in constants.items())
    return inner, list(constants)


def quantize_signature(
    model: onnx.ModelProto, *, keep: Collection[str] = ()
) -> dict[str, tuple[float, int]]:
    """Let quantised inputs and outputs cross the border of the graph as integers.

    A float input that is quantised first thing, and an output that is dequantised last thing, cost
    the NPU a conversion and twice the bytes; the caller does both while it copies.

    Args:
        model: QDQ model; changed in place.
        keep: Names that stay as they are.

    Returns:
        Name -> (scale, zero point) of every tensor that changed its type.
    """
    graph = model.graph
    constants = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    changed: dict[str, tuple[float, int]] = {}
    for value in graph.input:
        users = [node for node in graph.node if value.name in node.input]
        if value.name in keep:
            continue
        if len(users) == 1 and users[0].op_type == "QuantizeLinear":
            rename_values(graph.node, {users[0].output[0]: value.name})
            graph.node.remove(users[0])
            changed[value.name] = _set_quantized(value, users[0], constants)
    for value in graph.output:
        maker = next(node for node in graph.node if value.name in node.output)
        if maker.op_type == "DequantizeLinear":
            if any(value.name in node.input for node in graph.node):
                # Such as a state, of which the graph itself makes the frames.
                rename_values(graph.node, {value.name: f"{value.name}_float"})
            else:
                graph.node.remove(maker)
            rename_values(graph.node, {maker.input[0]: value.name})
            changed[value.name] = _set_quantized(value, maker, constants)
    return changed


def tensor_specs(
    values: Sequence[onnx.ValueInfoProto], quantized: Mapping[str, tuple[float, int]]
) -> tuple[TensorSpec, ...]:
    """Return inputs or outputs of a graph as a manifest says them."""
    specs: list[TensorSpec] = []
    for value in values:
        tensor = value.type.tensor_type
        scale, zero_point = quantized.get(value.name, (None, None))
        specs.append(
            TensorSpec(
                name=value.name,
                shape=tuple(x.dim_value for x in tensor.shape.dim),
                dtype=_DTYPES[tensor.elem_type],
                scale=scale,
                zero_point=zero_point,
            )
        )
    return tuple(specs)


def _set_quantized(
    value: onnx.ValueInfoProto, node: onnx.NodeProto, constants: Mapping[str, Any]
) -> tuple[float, int]:
    scale, zero_point = constants[node.input[1]], constants[node.input[2]]
    value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(zero_point.dtype)
    return float(scale), int(zero_point)


def _weight_bytes(network: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in network.state_dict().values())
