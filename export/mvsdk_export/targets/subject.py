"""What the stages of all targets share: names of files, and how a network is opened and fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvsdk.manifest import TensorSpec
from mvsdk_export.checkpoints import ModelFolder, open_model
from mvsdk_export.families.recipe import ComponentRecipe, TensorRecipe
from mvsdk_export.families.shapes import graph_sizes, input_shapes
from mvsdk_export.graphs.capture import PixelBorders
from mvsdk_export.parity.reference import as_real, load_calls, unique
from mvsdk_export.quantize.qdq import Feed

MODEL = "model.onnx"
CONTEXT = "model_ctx.onnx"
CALLS = "calls.npz"
PICTURES = "pictures.npz"


def open_folder(model: str, decoder: str | None) -> ModelFolder:
    """Open the model folder of an export."""
    return open_model(Path(model), decoder=None if decoder is None else Path(decoder))


def sizes_of(
    folder: ModelFolder, num_frames: int, height: int, width: int, decode_frames: int
) -> dict[str, int]:
    """Return the size of every symbol, as `graph_sizes` does."""
    return graph_sizes(
        folder.configs(),
        num_frames=num_frames,
        height=height,
        width=width,
        decode_frames=decode_frames,
    )


def load_graph(
    folder: ModelFolder,
    component: str,
    num_frames: int,
    height: int,
    width: int,
    guidance: Sequence[float] | None,
) -> torch.nn.Module:
    """Load the network of a component with what a phone's graph has around it."""
    first_and_last = None if guidance is None else (guidance[0], guidance[1])
    return folder.load_graph(
        component, num_frames=num_frames, height=height, width=width, guidance=first_and_last
    )


def example_inputs(
    folder: ModelFolder,
    component: str,
    num_frames: int,
    height: int,
    width: int,
    decode_frames: int,
) -> dict[str, Tensor]:
    """Return zeros of the shape and type of every input of a traced network, in order."""
    part = folder.recipe.component(component)
    shapes = input_shapes(part, sizes_of(folder, num_frames, height, width, decode_frames))
    return {
        tensor.name: torch.zeros(shapes[tensor.name], dtype=real_type(tensor))
        for tensor in part.inputs
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A component that is lowered from PyTorch: its network, and what crosses its border."""

    recipe: ComponentRecipe
    network: nn.Module
    """In the forms of training; takes and gives pixels as whole numbers."""
    inputs: dict[str, Tensor]
    """Example of every input."""
    outputs: list[str]


def open_subject(
    model: str,
    decoder: str | None,
    subject: Mapping[str, Any],
    *,
    pixels: torch.dtype,
) -> Subject:
    """Load what a stage lowers.

    Args:
        model: Model folder.
        decoder: Folder of another decoder; None for the model's own.
        subject: `component`, sizes of a clip and `guidance`, as `trace` takes them.
        pixels: Type of pixels at the border.
    """
    sizes = {key: value for key, value in subject.items() if key not in ("component", "guidance")}
    folder = open_folder(model, decoder)
    recipe = folder.recipe.component(subject["component"])
    network = load_graph(
        folder,
        recipe.name,
        sizes["num_frames"],
        sizes["height"],
        sizes["width"],
        subject["guidance"],
    )
    examples = example_inputs(folder, recipe.name, **sizes)
    pictures = [tensor.name for tensor in recipe.inputs if tensor.dtype == "uint8"]
    frames = [tensor.name for tensor in recipe.outputs if tensor.dtype == "uint8"]
    outputs = [tensor.name for tensor in recipe.outputs]
    return Subject(
        recipe=recipe,
        network=PixelBorders(
            network,
            list(examples),
            outputs,
            pixel_inputs=pictures,
            pixel_outputs=frames,
            dtype=pixels,
        ),
        inputs={
            name: value.to(pixels) if name in pictures else value
            for name, value in examples.items()
        },
        outputs=outputs,
    )


def crossing_feeds(recorded: str, component: str) -> list[Feed]:
    """Return what a component was called with, each once, with pixels as whole numbers."""
    calls = unique(load_calls(Path(recorded) / CALLS, component))
    return [
        {
            name: value.astype(np.float32) if value.dtype == np.uint8 else value
            for name, value in call.inputs.items()
        }
        for call in calls
    ]


def real_type(tensor: TensorRecipe) -> torch.dtype:
    """Return what a traced network takes: numbers for bytes, which the graph divides by 255."""
    return torch.float32 if tensor.dtype == "uint8" else getattr(torch, tensor.dtype)


def feeds_of(recorded: str, component: str) -> list[Feed]:
    """Return what a component was called with, each once."""
    calls = unique(load_calls(Path(recorded) / CALLS, component))
    return [as_real(call.inputs) for call in calls]


def plain(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Return tensors as JSON has them."""
    return [asdict(spec) for spec in specs]
