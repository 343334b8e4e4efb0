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
from mvsdk_export.networks.blocks import set_forms_
from mvsdk_export.pictures import Picture, paint_pictures, read_pictures
from mvsdk_export.quantize.qdq import quantize_w8a16
from mvsdk_export.recipes import DENOISERS, find_recipe
from mvsdk_export.recipes.spec import TensorRecipe
from mvsdk_export.reference import Case, Reference, as_real, load_calls, save_calls, unique
from mvsdk_export.schedule import make_sampler
from mvsdk_export.shapes import graph_sizes, input_shapes
from mvsdk_export.targets.onnx import (
    append_byte_output,
    convert_float16,
    export_onnx,
    prepend_byte_input,
    quantize_borders,
    save_model,
    tensor_specs,
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
    calls = unique(load_calls(Path(recorded) / CALLS, component))
    quantize_w8a16(
        Path(traced) / MODEL,
        output / MODEL,
        [as_real(call.inputs) for call in calls],
        split_last=component in DENOISERS,
    )
    model = onnx.load(output / MODEL)
    _cross_as_bytes(model, byte_inputs, byte_outputs)
    borders = quantize_borders(model)
    save_model(model, output / MODEL)
    return {**_borders(output / MODEL, borders), "calibration_inputs": len(calls)}


def compile_chip(*, source: str, chip: str, float16: bool, output: Path) -> dict[str, Any]:
    """Compile a finished or quantised model for one Snapdragon chip."""
    from mvsdk_export.targets.snapdragon import compile_context

    residency = compile_context(
        Path(source) / MODEL, output / CONTEXT, find_chipset(chip).chip, float16=float16
    )
    return {"residency": asdict(residency)}


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


def _cross_as_bytes(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for name in inputs:
        prepend_byte_input(model, name)
    for name in outputs:
        append_byte_output(model, name)


def _borders(path: Path, quantized: Mapping[str, tuple[float, int]]) -> dict[str, Any]:
    graph = onnx.load(path, load_external_data=False).graph
    return {
        "inputs": _plain(tensor_specs(graph.input, quantized)),
        "outputs": _plain(tensor_specs(graph.output, quantized)),
    }


def _plain(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [asdict(spec) for spec in specs]
