"""Post-training quantisation of ONNX models into QDQ form, for QNN and for ONNX Runtime."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorData, create_calibrator, save_tensors_data
from onnxruntime.quantization.execution_providers.qnn import (
    get_qnn_qdq_config,
    qnn_preprocess_model,
)

from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.onnx import save_model
from mvsdk_export.jobs.progress import counted
from mvsdk_export.quiet import quiet

Feed = Mapping[str, NDArray[Any]]


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
            _Reader(feeds),
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QInt8,
            per_channel=True,
            init_overrides=_normalisation_weights(prepared),
        )
        ranges = Path(folder) / "ranges.json"
        _calibrate(prepared, feeds, config.op_types_to_quantize, ranges)
        quantize_static(
            prepared,
            target,
            activation_type=config.activation_type,
            weight_type=config.weight_type,
            op_types_to_quantize=config.op_types_to_quantize,
            per_channel=config.per_channel,
            use_external_data_format=config.use_external_data_format,
            extra_options=config.extra_options,
            calibration_cache_path=ranges,
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


def _calibrate(source: Path, feeds: Sequence[Feed], kinds: Sequence[str], target: Path) -> None:
    """Write the range of every activation, with headroom, where `quantize_static` reads them."""
    with tempfile.TemporaryDirectory() as folder:
        augmented = Path(folder) / "augmented.onnx"
        calibrator = create_calibrator(
            source,
            kinds,
            augmented_model_path=str(augmented),
            use_external_data_format=_is_external(source),
        )
        calibrator.infer_session = _sparing_session(augmented)
        calibrator.collect_data(_Reader(feeds))
        ranges = calibrator.compute_data()
    limits = clip_limits(onnx.load(source).graph)
    for name, seen in ranges.items():
        lowest, highest = (x * np.float32(1 + HEADROOM) for x in seen.range_value)
        least, most = limits.get(name, (-np.inf, np.inf))
        ranges[name] = TensorData(
            lowest=np.maximum(lowest, np.float32(least)),
            highest=np.minimum(highest, np.float32(most)),
        )
    save_tensors_data(ranges, target)


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


def _is_external(path: Path) -> bool:
    graph = onnx.load(path, load_external_data=False).graph
    return any(uses_external_data(tensor) for tensor in graph.initializer)


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


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(counted(feeds, "inputs"))

    def get_next(self) -> Any:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


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
