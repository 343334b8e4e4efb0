"""What the stages of an export do. Every function runs in a child process (stages.py).

A function takes JSON values and paths of finished stages, writes files into `output` and returns
JSON values. None of them prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from mvsdk.bundle import Bundle
from mvsdk.conditioning import MicroConditioning
from mvsdk.devices import find_chipset
from mvsdk.manifest import TensorSpec
from mvsdk.tokenizer import WordPiece
from mvsdk_export.checkpoints import ModelFolder, open_model
from mvsdk_export.errors import ExportError
from mvsdk_export.networks.blocks import set_forms_
from mvsdk_export.pictures import Picture, paint_pictures, read_pictures
from mvsdk_export.preflight import PROTOBUF_LIMIT_BYTES
from mvsdk_export.quantize.part_feeds import PartFeeds, evaluate_parts
from mvsdk_export.quantize.qdq import Feed, quantize_w8a16
from mvsdk_export.recipes import DENOISERS, find_recipe
from mvsdk_export.recipes.spec import TensorRecipe
from mvsdk_export.reference import Case, Reference, as_real, load_calls, save_calls, unique
from mvsdk_export.schedule import make_sampler
from mvsdk_export.shapes import graph_sizes, input_shapes
from mvsdk_export.stages import read_result
from mvsdk_export.targets.join import join_models
from mvsdk_export.targets.onnx import (
    append_byte_output,
    convert_float16,
    export_onnx,
    prepend_byte_input,
    quantize_borders,
    save_model,
    tensor_specs,
)
from mvsdk_export.targets.split import (
    Part,
    agree_float16,
    agree_quantized,
    crossing_values,
    split_model,
)

MODEL = "model.onnx"
CONTEXT = "model_ctx.onnx"
CALLS = "calls.npz"
PICTURES = "pictures.npz"


def trace(
    *,
    model: str,
    component: str,
    num_frames: int,
    height: int,
    width: int,
    decode_frames: int,
    guidance: Sequence[float] | None,
    output: Path,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Lower one component to float32 ONNX in its NPU forms."""
    folder = _open(model, decoder)
    graph = _load_graph(folder, component, num_frames, height, width, guidance)
    part = folder.recipe.component(component)
    shapes = input_shapes(part, _sizes(folder, num_frames, height, width, decode_frames))
    inputs = {
        tensor.name: torch.zeros(shapes[tensor.name], dtype=_real_type(tensor))
        for tensor in part.inputs
    }
    outputs = [tensor.name for tensor in part.outputs]
    export_onnx(set_forms_(graph), inputs, outputs, output / MODEL)
    return {}


def paint(
    *, painter: str, prompts: Sequence[str], height: int, width: int, output: Path
) -> dict[str, Any]:
    """Paint the pictures that prompts name."""
    pictures = paint_pictures(open_model(Path(painter)), prompts, height, width)
    return _save_pictures(pictures, output)


def read(
    *, folder: str, names: Sequence[str], height: int, width: int, output: Path
) -> dict[str, Any]:
    """Read pictures of a folder."""
    return _save_pictures(read_pictures(Path(folder), names, height, width), output)


def record(
    *,
    model: str,
    num_frames: int,
    height: int,
    width: int,
    decode_frames: int,
    guidance: Sequence[float] | None,
    steps: Sequence[int],
    default_steps: int,
    prompts: Sequence[str],
    first_seed: int,
    conditioning: Sequence[Sequence[float]],
    output: Path,
    pictures: str | None = None,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Run the float32 reference over prompts and step counts and keep every network call.

    Prompt number i gets the seed `first_seed + i`. Where a picture says what a clip shows, prompts
    are the names of the pictures, and each is made under the next of `conditioning` in turn.
    """
    folder = _open(model, decoder)
    sizes = _sizes(folder, num_frames, height, width, decode_frames)
    recipe = folder.recipe
    tokenizer = folder.tokenizer_file
    reference = Reference(
        recipe,
        {
            part.name: _load_graph(folder, part.name, num_frames, height, width, guidance)
            for part in recipe.components
        },
        make_sampler(folder.scheduler, steps, default_steps, conditioning=recipe.conditioning),
        WordPiece.from_file(tokenizer, sizes["L"]) if tokenizer else None,
        decode_frames=decode_frames,
    )
    shape = tuple(sizes[symbol] for symbol in ("F", "C", "h", "w"))
    shown = _load_pictures(Path(pictures)) if pictures else [None] * len(prompts)
    said = [MicroConditioning.from_added_time_ids(x) for x in conditioning]
    calls = [
        call
        for index, (prompt, picture) in enumerate(zip(prompts, shown, strict=True))
        for count in steps
        for call in reference.run(
            Case(
                prompt=prompt,
                seed=first_seed + index,
                num_inference_steps=count,
                picture=picture,
                conditioning=said[index % len(said)] if picture is not None else None,
            ),
            shape,
        )
    ]
    save_calls(calls, output / CALLS)
    return {"calls": len(calls)}


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
    byte_inputs: Sequence[str],
    byte_outputs: Sequence[str],
    output: Path,
) -> dict[str, Any]:
    """Quantise a component to w8a16 on the recorded trajectories."""
    feeds = _feeds(recorded, component)
    quantize_w8a16(Path(traced) / MODEL, output / MODEL, feeds, split_last=component in DENOISERS)
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
    parts, feeds = _parts_of(split), _feeds(recorded, component)
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
    feeds = PartFeeds(parts, part, _feeds(recorded, component), Path(evaluated))
    is_last = not crossing_values(parts).issuperset(parts[part].outputs)
    quantize_w8a16(
        parts[part].path,
        output / MODEL,
        feeds,
        split_last=is_last and component in DENOISERS,
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


def compile_chip(*, source: str, chip: str, float16: bool, output: Path) -> dict[str, Any]:
    """Compile a finished or quantised model, or a part of one, for one Snapdragon chip."""
    from mvsdk_export.targets.snapdragon import compile_context

    residency = compile_context(
        Path(source) / MODEL, output / CONTEXT, find_chipset(chip).chip, float16=float16
    )
    found = read_result(Path(source))
    return {
        "inputs": found["inputs"],
        "outputs": found["outputs"],
        "residency": asdict(residency),
    }


def join(
    *, pieces: Sequence[str], inputs: Sequence[str], outputs: Sequence[str], output: Path
) -> dict[str, Any]:
    """Join the finished or quantised parts of a component."""
    join_models([Path(piece) / MODEL for piece in pieces], output / MODEL, outputs=outputs)
    return _borders_of_whole(pieces, inputs, outputs)


def stitch(
    *, pieces: Sequence[str], inputs: Sequence[str], outputs: Sequence[str], output: Path
) -> dict[str, Any]:
    """Join the compiled parts of a component."""
    from mvsdk_export.targets.snapdragon import stitch_contexts

    residency = asdict(
        stitch_contexts(
            [Path(piece) / CONTEXT for piece in pieces], output / CONTEXT, outputs=outputs
        )
    )
    known = {
        (node["operator"], node["name"]): node
        for piece in pieces
        for node in read_result(Path(piece))["residency"]["left_outside"]
    }
    residency["left_outside"] = [
        known.get((node["operator"], node["name"]), node) for node in residency["left_outside"]
    ]
    return {**_borders_of_whole(pieces, inputs, outputs), "residency": residency}


def verify(
    *, bundle: str, variant: str, prompts: Sequence[str], recorded: str, recipe: str, output: Path
) -> dict[str, Any]:
    """Hold one set of variants of a bundle to the recorded reference, for some of its prompts."""
    from mvsdk_export.verify import parse_case, verify_variant

    del output
    calls = [
        call for call in load_calls(Path(recorded) / CALLS) if parse_case(call.case)[0] in prompts
    ]
    parts = Bundle.open(Path(bundle)).manifest.components.values()
    chosen = next(x for part in parts for x in part.variants if x.id == variant)
    records = verify_variant(Path(bundle), chosen, calls, find_recipe(recipe))
    return {"records": [asdict(record) for record in records]}


def _open(model: str, decoder: str | None) -> ModelFolder:
    return open_model(Path(model), decoder=None if decoder is None else Path(decoder))


def _sizes(
    folder: ModelFolder, num_frames: int, height: int, width: int, decode_frames: int
) -> dict[str, int]:
    return graph_sizes(
        folder.configs(),
        num_frames=num_frames,
        height=height,
        width=width,
        decode_frames=decode_frames,
    )


def _load_graph(
    folder: ModelFolder,
    component: str,
    num_frames: int,
    height: int,
    width: int,
    guidance: Sequence[float] | None,
) -> torch.nn.Module:
    first_and_last = None if guidance is None else (guidance[0], guidance[1])
    return folder.load_graph(
        component, num_frames=num_frames, height=height, width=width, guidance=first_and_last
    )


def _real_type(tensor: TensorRecipe) -> torch.dtype:
    """Return what a traced network takes: numbers for bytes, which the graph divides by 255."""
    return torch.float32 if tensor.dtype == "uint8" else getattr(torch, tensor.dtype)


def _save_pictures(pictures: Sequence[Picture], output: Path) -> dict[str, Any]:
    np.savez(output / PICTURES, *pictures)
    return {"pictures": len(pictures)}


def _load_pictures(folder: Path) -> list[Picture]:
    with np.load(folder / PICTURES, allow_pickle=False) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]


def _feeds(recorded: str, component: str) -> list[Feed]:
    """Return what a component was called with, each once."""
    calls = unique(load_calls(Path(recorded) / CALLS, component))
    return [as_real(call.inputs) for call in calls]


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
        "inputs": _plain(tensor_specs(graph.input, quantized)),
        "outputs": _plain(tensor_specs(graph.output, quantized)),
    }


def _borders_of_whole(
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


def _plain(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [asdict(spec) for spec in specs]
