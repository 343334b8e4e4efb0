"""Stages that make ONNX models: what a chip is compiled from, and a target of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.join import join_models
from mvsdk_export.graphs.onnx import (
    append_byte_output,
    convert_float16,
    export_onnx,
    prepend_byte_input,
    quantize_borders,
    save_model,
    tensor_specs,
)
from mvsdk_export.graphs.split import (
    Part,
    agree_float16,
    agree_quantized,
    crossing_values,
    split_model,
)
from mvsdk_export.jobs.runner import read_result
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.planning.preflight import PROTOBUF_LIMIT_BYTES
from mvsdk_export.quantize.part_inputs import PartFeeds, evaluate_parts
from mvsdk_export.quantize.qdq import quantize_w8a16
from mvsdk_export.targets.subject import (
    MODEL,
    example_inputs,
    feeds_of,
    load_graph,
    open_folder,
    plain,
)


def trace(
    *,
    model: str,
    component: str,
    num_frames: int,
    height: int,
    width: int,
    decode_frames: int,
    guidance: Sequence[float] | None,
    htp_float16: bool,
    output: Path,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Lower one component to float32 ONNX in its NPU forms, or those of the HTP in float16."""
    folder = open_folder(model, decoder)
    graph = load_graph(folder, component, num_frames, height, width, guidance)
    inputs = example_inputs(folder, component, num_frames, height, width, decode_frames)
    outputs = [tensor.name for tensor in folder.recipe.component(component).outputs]
    engine = "htp_fp16" if htp_float16 else "htp"
    export_onnx(select_implementations_(graph, engine), inputs, outputs, output / MODEL)
    return {}


def finish(
    *,
    traced: str,
    byte_inputs: Sequence[str],
    byte_outputs: Sequence[str],
    precision: str,
    output: Path,
) -> dict[str, Any]:
    """Make the float32 or float16 model of a component, inputs and outputs of bytes included."""
    model = onnx.load(Path(traced) / MODEL)
    _cross_as_bytes(model, byte_inputs, byte_outputs)
    if precision == "fp16":
        model = convert_float16(model)
    save_model(model, output / MODEL)
    return _borders(output / MODEL, {})


def quantize(
    *,
    traced: str,
    recorded: str,
    component: str,
    split_last: bool,
    byte_inputs: Sequence[str],
    byte_outputs: Sequence[str],
    output: Path,
) -> dict[str, Any]:
    """Quantise a component to w8a16 on the recorded trajectories."""
    feeds = feeds_of(recorded, component)
    quantize_w8a16(Path(traced) / MODEL, output / MODEL, feeds, split_last=split_last)
    model = onnx.load(output / MODEL)
    _cross_as_bytes(model, byte_inputs, byte_outputs)
    borders = quantize_borders(model)
    save_model(model, output / MODEL)
    return {**_borders(output / MODEL, borders), "calibration_inputs": len(feeds)}


def split(*, traced: str, parts: int, output: Path) -> dict[str, Any]:
    """Cut the graph of a component into parts of about equal weight."""
    found = split_model(Path(traced) / MODEL, output, parts=parts, most_bytes=PROTOBUF_LIMIT_BYTES)
    return {"parts": [asdict(part) | {"path": part.path.name} for part in found]}


def evaluate(*, split: str, recorded: str, component: str, output: Path) -> dict[str, Any]:
    """Run the parts of a component on its recorded calls, one part after the other, in float32."""
    parts, feeds = _parts_of(split), feeds_of(recorded, component)
    evaluate_parts(parts, feeds, output)
    return {"calls": len(feeds)}


def finish_part(
    *,
    split: str,
    part: int,
    byte_inputs: Sequence[str],
    byte_outputs: Sequence[str],
    precision: str,
    output: Path,
) -> dict[str, Any]:
    """Make a float32 or float16 part of a component; other parts take and give float16."""
    parts = _parts_of(split)
    model = onnx.load(parts[part].path)
    _cross_as_bytes(model, byte_inputs, byte_outputs)
    if precision == "fp16":
        model = convert_float16(model)
    agree_float16(model, crossing_values(parts))
    save_model(model, output / MODEL)
    return _borders(output / MODEL, {})


def quantize_part(
    *,
    split: str,
    evaluated: str,
    recorded: str,
    component: str,
    split_last: bool,
    part: int,
    agreed: Mapping[str, tuple[float | None, int | None]],
    byte_inputs: Sequence[str],
    byte_outputs: Sequence[str],
    output: Path,
) -> dict[str, Any]:
    """Quantise a part of a component to w8a16.

    `agreed` has scale and zero point of what earlier parts give and take, None for what they left
    in floating point.
    """
    parts = _parts_of(split)
    feeds = PartFeeds(parts, part, feeds_of(recorded, component), Path(evaluated))
    is_last = not crossing_values(parts).issuperset(parts[part].outputs)
    quantize_w8a16(
        parts[part].path,
        output / MODEL,
        feeds,
        split_last=is_last and split_last,
    )
    model = onnx.load(output / MODEL)
    _cross_as_bytes(model, byte_inputs, byte_outputs)
    made = {
        name: (scale, zero_point)
        for name, (scale, zero_point) in agreed.items()
        if scale is not None and zero_point is not None
    }
    agree_quantized(model, made)
    borders = made | quantize_borders(model, keep=agreed.keys() - made.keys())
    save_model(model, output / MODEL)
    return {**_borders(output / MODEL, borders), "calibration_inputs": len(feeds)}


def join(
    *, pieces: Sequence[str], inputs: Sequence[str], outputs: Sequence[str], output: Path
) -> dict[str, Any]:
    """Join the finished or quantised parts of a component."""
    join_models([Path(piece) / MODEL for piece in pieces], output / MODEL, outputs=outputs)
    return borders_of_whole(pieces, inputs, outputs)


def _parts_of(split: str) -> list[Part]:
    return [
        Part(
            path=Path(split) / row["path"],
            inputs=tuple(row["inputs"]),
            outputs=tuple(row["outputs"]),
            nodes=row["nodes"],
            weight_bytes=row["weight_bytes"],
        )
        for row in read_result(Path(split))["parts"]
    ]


def _cross_as_bytes(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Let those of the inputs and outputs be bytes that the model has; it may be a part of one."""
    for value in model.graph.input:
        if value.name in inputs:
            prepend_byte_input(model, value.name)
    for value in model.graph.output:
        if value.name in outputs:
            append_byte_output(model, value.name)


def _borders(path: Path, quantized: Mapping[str, tuple[float, int]]) -> dict[str, Any]:
    graph = onnx.load(path, load_external_data=False).graph
    return {
        "inputs": plain(tensor_specs(graph.input, quantized)),
        "outputs": plain(tensor_specs(graph.output, quantized)),
    }


def borders_of_whole(
    pieces: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
    """Return the borders of what was cut, as its parts have them."""
    found: dict[str, Any] = {}
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        rows = {row["name"]: row for piece in pieces for row in read_result(Path(piece))[side]}
        if missing := [name for name in names if name not in rows]:
            raise ExportError(
                f"{missing[0]!r} is among the {side} of no part; a network that does not use it "
                "cannot be cut: raise part_bytes"
            )
        found[side] = [rows[name] for name in names]
    return found
