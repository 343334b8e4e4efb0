"""Post-training quantisation of ONNX models into QDQ form, for QNN and for ONNX Runtime."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, StaticQuantConfig
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.execution_providers.qnn import (
    get_qnn_qdq_config,
    qnn_preprocess_model,
)
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer, update_opset_version

from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.onnx import save_model
from mvsdk_export.quantize.activations import Feed
from mvsdk_export.quantize.indexed_model import IndexedModel
from mvsdk_export.quantize.ranges import measure_ranges
from mvsdk_export.quiet import quiet

_MOVES = frozenset({"DepthToSpace", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that change no value."""

_BIASED = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "LayerNormalization"}
)
"""Operators whose third input is a bias."""

HEADROOM = 0.5
"""Share of itself by which a range is wider than calibration saw it, on either side of zero.

It costs less than one bit of sixteen. Without it sticker puts a subject that moves a little higher
than any in calibration where that one was.
"""


def quantize_w8a16(
    source: Path, target: Path, feeds: Sequence[Feed], *, split_last: bool = False
) -> None:
    """Quantise a float32 model: 8-bit weights, 16-bit activations.

    Weights of convolutions are int8 per output channel, those of matrix products int8 per tensor;
    embedding tables and scales of layer normalisations are uint16. Activations are uint16 per
    tensor, with the extremes over the calibration feeds and some headroom as range, so the feeds
    must cover what the sampler visits: whole trajectories, every step.

    Args:
        source: Float32 model of fixed shapes.
        target: QDQ model to write. Float inputs and outputs become uint16 at the border.
        feeds: Calibration inputs, by input name.
        split_last: Give the convolutions that write the outputs two int8 terms (`split_weights`).

    Raises:
        ExportError: If there are no feeds, or one holds a value that is not finite.
    """
    _check_feeds(feeds)
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared = _prepare(source, Path(folder), split_last=split_last)
        config = get_qnn_qdq_config(
            prepared,
            _NoReader(),
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            per_channel=True,
            init_overrides=_normalisation_weights(prepared),
        )
        kinds = config.op_types_to_quantize
        ranges = _calibrate(prepared, feeds, kinds)  # first: it holds the model for itself
        quantizer = QDQQuantizer(
            _at_opset(load_model_with_shape_infer(prepared), config),
            config.per_channel,
            config.reduce_range,
            config.weight_type,
            config.activation_type,
            ranges,
            [],
            [],
            kinds,
            config.extra_options,
        )
        quantizer.model = IndexedModel(quantizer.model.model)
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(target, config.use_external_data_format)


def _at_opset(model: onnx.ModelProto, config: StaticQuantConfig) -> onnx.ModelProto:
    """Return a model whose opset has the types of the quantised one."""
    overrides = config.extra_options.get("TensorQuantOverrides")
    return update_opset_version(
        model, config.weight_type, config.activation_type, tensor_quant_overrides=overrides
    )


def _prepare(source: Path, folder: Path, *, split_last: bool) -> Path:
    """Write the float32 model that the quantiser takes."""
    fused = folder / "fused.onnx"
    model = onnx.load(fused if qnn_preprocess_model(source, fused) else source)
    if split_last:
        split_weights(model, last_convolutions(model.graph))
    separate_biases(model)
    replace_clips(model)
    prepared = folder / "prepared.onnx"
    save_model(model, prepared)
    return prepared


def _calibrate(source: Path, feeds: Sequence[Feed], kinds: Sequence[str]) -> TensorsData:
    """Return the range of every activation, with headroom."""
    limits = clip_limits(onnx.load(source).graph)
    ranges: dict[str, Any] = {}
    for name, seen in measure_ranges(source, feeds, kinds).items():
        lowest, highest = (x * np.float32(1 + HEADROOM) for x in seen)
        least, most = limits.get(name, (-np.inf, np.inf))
        ranges[name] = TensorData(
            lowest=np.maximum(lowest, np.float32(least)),
            highest=np.minimum(highest, np.float32(most)),
        )
    return TensorsData(CalibrationMethod.MinMax, ranges)


def clip_limits(graph: onnx.GraphProto) -> dict[str, tuple[float, float]]:
    """Return what Clip operators hold their results within, by name.

    The range of such a result is what clips it: the quantiser leaves the operator out, and so does
    the HTP compiler where it is left in.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def limit(node: onnx.NodeProto, index: int, default: float) -> float:
        name = node.input[index] if index < len(node.input) else ""
        return float(numpy_helper.to_array(constants[name])) if name else default

    return {
        node.output[0]: (limit(node, 1, -np.inf), limit(node, 2, np.inf))
        for node in graph.node
        if node.op_type == "Clip"
    }


def replace_clips(model: onnx.ModelProto) -> None:
    """Write a Clip to limits on one side of zero as Max and Min.

    Quantised ranges hold zero, so that no range clips to such limits, and the HTP compiler leaves
    the operator out all the same (QNN 2.51).

    Args:
        model: Changed in place; limits are constants of the graph.
    """
    graph = model.graph
    limits = clip_limits(graph)
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        least, most = limits.get(node.output[0], (0.0, 0.0))
        if node.op_type != "Clip" or least <= 0.0 <= most:
            continue
        bounds = (("Max", 1, least), ("Min", 2, most))
        steps = [(kind, node.input[i]) for kind, i, limit in bounds if math.isfinite(limit)]
        results = [f"{node.output[0]}/{kind}" for kind, _ in steps[:-1]] + [node.output[0]]
        value = node.input[0]
        graph.node.remove(node)
        for (kind, limit), result in zip(steps, results, strict=True):
            made = onnx.helper.make_node(kind, [value, limit], [result], f"{node.name}/{kind}")
            graph.node.insert(position, made)
            position, value = position + 1, result


def last_convolutions(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the convolutions whose results reach an output unchanged."""
    makers = {name: node for node in graph.node for name in node.output}
    pending = [value.name for value in graph.output]
    found: list[str] = []
    while pending:
        node = makers.get(pending.pop())
        if node is None:
            continue
        if node.op_type == "Conv":
            found.append(node.name)
        elif node.op_type in _MOVES:
            pending.append(node.input[0])
    return found


def split_weights(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Write convolutions as the sum of two, the second with what int8 loses of the first's weights.

    Both terms keep 8-bit weights, which NPUs multiply fastest, and together they have about 15
    bits. No later layer averages out the error of the last convolution: in the denoiser of sticker
    int8 weights of it alone cost 33 dB, those of every other part 42 dB or more.

    Args:
        model: Changed in place; the kernels are constants of the graph.
        names: Convolution nodes.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if node.op_type != "Conv" or node.name not in names:
            continue
        kernel = numpy_helper.to_array(constants[node.input[1]])
        peak = np.abs(kernel).max(axis=tuple(range(1, kernel.ndim)), keepdims=True)
        scale = np.maximum(peak, np.finfo(np.float32).tiny) / np.float32(127)
        coarse = (np.rint(kernel / scale) * scale).astype(np.float32)
        terms = {"coarse": coarse, "fine": kernel - coarse}
        for term, value in terms.items():
            name = f"{node.input[1]}/{term}"
            graph.initializer.append(numpy_helper.from_array(value, name))
            part = onnx.NodeProto()
            part.CopyFrom(node)
            part.name, part.output[0] = f"{node.name}/{term}", f"{node.output[0]}/{term}"
            part.input[1] = name
            if term == "fine":
                del part.input[2:]  # the bias is added once
            graph.node.insert(position, part)
        parts = [f"{node.output[0]}/{term}" for term in terms]
        total = onnx.helper.make_node("Add", parts, list(node.output), f"{node.name}/sum")
        graph.node.insert(position + 2, total)
        graph.node.remove(graph.node[position + 3])


def separate_biases(model: onnx.ModelProto) -> None:
    """Give every layer a bias of its own: its scale is that of the layer's input and weight.

    ONNX Runtime 1.31 would do it, but takes a name that another value may have: the copy of a bias
    slice_35 becomes slice_350, and a denoiser of that many slices is refused ("Quantization
    parameter shared mode is not supported for weight yet").

    Args:
        model: Changed in place.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    taken = {*constants, *(value.name for value in graph.input)}
    taken.update(name for node in graph.node for name in node.output)
    seen: set[str] = set()
    for node in graph.node:
        name = node.input[2] if node.op_type in _BIASED and len(node.input) > 2 else ""
        if name not in constants:
            continue
        if name in seen:
            own = next(x for x in map(f"{name}/{{}}".format, count(1)) if x not in taken)
            graph.initializer.add().CopyFrom(constants[name])
            graph.initializer[-1].name = own
            node.input[2] = own
            taken.add(own)
        seen.add(name)


def _normalisation_weights(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Give the scale of every layer normalisation 16 unsigned bits: the HTP takes no signed type.

    With int8 QNN 2.51 leaves the operator outside ("validation failed ... error code 3110"); 8
    unsigned bits would cost each normalisation 33 dB.
    """
    graph = onnx.load(path, load_external_data=False).graph
    scales = {node.input[1] for node in graph.node if node.op_type == "LayerNormalization"}
    return {name: [{"quant_type": QuantType.QUInt16}] for name in sorted(scales)}


class _NoReader(CalibrationDataReader):
    """Stands where ONNX Runtime's own calibrator would find inputs."""

    def get_next(self) -> Any:
        return None


def _check_feeds(feeds: Sequence[Feed]) -> None:
    if not feeds:
        raise ExportError("calibration has no inputs; give at least one prompt")
    for feed in feeds:
        for name, value in feed.items():
            if not np.isfinite(value).all():
                raise ExportError(
                    f"calibration input {name!r} holds values that are not finite; "
                    "check the checkpoint: mvsdk verify compares it with itself in float32"
                )
