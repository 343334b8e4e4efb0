"""What the stages of an export do. Every function runs in a child process (stages.py).

A function takes JSON values and paths of finished stages, writes files into `output` and returns
JSON values. None of them prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch

from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.manifest import TensorSpec
from mvsdk.tokenizer import WordPiece
from mvsdk_export.checkpoints import ModelFolder, open_model_folder
from mvsdk_export.networks.blocks import set_forms_
from mvsdk_export.quantize.qdq import quantize_w8a16
from mvsdk_export.recipes import DENOISERS, find_recipe
from mvsdk_export.reference import Case, Reference, load_calls, save_calls, unique
from mvsdk_export.schedule import make_sampler
from mvsdk_export.shapes import graph_sizes, input_shapes
from mvsdk_export.targets.onnx import (
    append_byte_output,
    convert_float16,
    export_onnx,
    quantize_borders,
    save_model,
    tensor_specs,
)

MODEL = "model.onnx"
CONTEXT = "model_ctx.onnx"
CALLS = "calls.npz"


def trace(
    *,
    model: str,
    recipe: str,
    component: str,
    num_frames: int,
    height: int,
    width: int,
    output: Path,
) -> dict[str, Any]:
    """Lower one component to float32 ONNX in its NPU forms."""
    folder = open_model_folder(Path(model), find_recipe(recipe))
    network = set_forms_(folder.load_graph(component, num_frames=num_frames))
    part = folder.recipe.component(component)
    shapes = input_shapes(part, _sizes(folder, num_frames, height, width))
    inputs = {
        tensor.name: torch.zeros(shapes[tensor.name], dtype=getattr(torch, tensor.dtype))
        for tensor in part.inputs
    }
    export_onnx(network, inputs, [tensor.name for tensor in part.outputs], output / MODEL)
    return {}


def record(
    *,
    model: str,
    recipe: str,
    num_frames: int,
    height: int,
    width: int,
    steps: Sequence[int],
    default_steps: int,
    prompts: Sequence[str],
    first_seed: int,
    output: Path,
) -> dict[str, Any]:
    """Run the float32 reference over prompts and step counts and keep every network call.

    Prompt number i gets the seed `first_seed + i`.
    """
    folder = open_model_folder(Path(model), find_recipe(recipe))
    sizes = _sizes(folder, num_frames, height, width)
    reference = Reference(
        {
            part.name: folder.load_graph(part.name, num_frames=num_frames)
            for part in folder.recipe.components
        },
        WordPiece.from_file(folder.tokenizer_file, sizes["L"]),
        make_sampler(folder.scheduler, steps, default_steps),
    )
    shape = tuple(sizes[symbol] for symbol in ("F", "C", "h", "w"))
    calls = [
        call
        for index, prompt in enumerate(prompts)
        for count in steps
        for call in reference.run(
            Case(prompt=prompt, seed=first_seed + index, num_inference_steps=count), shape
        )
    ]
    save_calls(calls, output / CALLS)
    return {"calls": len(calls)}


def finish(
    *, traced: str, component: str, recipe: str, precision: str, output: Path
) -> dict[str, Any]:
    """Make the float32 or float16 model of a component, byte outputs included."""
    model = onnx.load(Path(traced) / MODEL)
    _append_byte_outputs(model, recipe, component)
    if precision == "fp16":
        model = convert_float16(model)
    save_model(model, output / MODEL)
    return _borders(output / MODEL, {})


def quantize(
    *, traced: str, recorded: str, component: str, recipe: str, output: Path
) -> dict[str, Any]:
    """Quantise a component to w8a16 on the recorded trajectories."""
    calls = unique(load_calls(Path(recorded) / CALLS, component))
    quantize_w8a16(
        Path(traced) / MODEL,
        output / MODEL,
        [call.inputs for call in calls],
        split_last=component in DENOISERS,
    )
    model = onnx.load(output / MODEL)
    _append_byte_outputs(model, recipe, component)
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


def _sizes(folder: ModelFolder, num_frames: int, height: int, width: int) -> dict[str, int]:
    configs = {part.name: folder.load_config(part.name) for part in folder.recipe.components}
    return graph_sizes(configs, num_frames=num_frames, height=height, width=width)


def _append_byte_outputs(model: onnx.ModelProto, recipe: str, component: str) -> None:
    for tensor in find_recipe(recipe).component(component).outputs:
        if tensor.dtype == "uint8":
            append_byte_output(model, tensor.name)


def _borders(path: Path, quantized: Mapping[str, tuple[float, int]]) -> dict[str, Any]:
    graph = onnx.load(path, load_external_data=False).graph
    return {
        "inputs": _plain(tensor_specs(graph.input, quantized)),
        "outputs": _plain(tensor_specs(graph.output, quantized)),
    }


def _plain(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [asdict(spec) for spec in specs]
