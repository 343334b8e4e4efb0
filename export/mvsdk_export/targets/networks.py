"""Networks as targets that lower from PyTorch take them: opened, with their I/O signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mvsdk_export.checkpoints.subject import Subject, open_files
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.graphs.capture import PixelBorders
from mvsdk_export.jobs.job import Files


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedNetwork:
    """A component that is lowered from PyTorch."""

    recipe: ComponentRecipe
    network: nn.Module
    """As it was trained; takes and gives pixels as whole numbers."""
    inputs: Mapping[str, Tensor]
    """Example of every input."""
    outputs: Sequence[str]


def open_network(model: Files, subject: Subject, *, pixels: torch.dtype) -> OpenedNetwork:
    """Load what a job lowers.

    Args:
        model: Model folder.
        subject: Which graph of it.
        pixels: Type of pixels among its inputs and outputs.
    """
    folder = open_files(model)
    recipe = subject.recipe(folder)
    examples = subject.example_inputs(folder)
    pixel_inputs = [tensor.name for tensor in recipe.inputs if tensor.dtype == "uint8"]
    outputs = [tensor.name for tensor in recipe.outputs]
    network = PixelBorders(
        subject.load(folder),
        list(examples),
        outputs,
        pixel_inputs=pixel_inputs,
        pixel_outputs=[tensor.name for tensor in recipe.outputs if tensor.dtype == "uint8"],
        dtype=pixels,
    )
    inputs = {
        name: value.to(pixels) if name in pixel_inputs else value
        for name, value in examples.items()
    }
    return OpenedNetwork(recipe=recipe, network=network, inputs=inputs, outputs=outputs)


def signature_of(opened: OpenedNetwork) -> dict[str, Any]:
    """Return what a network takes and gives, as JSON values: it is run once, on its examples."""
    with torch.no_grad():
        made = opened.network(*opened.inputs.values())
    results = (made,) if isinstance(made, Tensor) else tuple(made)
    tensors = {"inputs": opened.inputs, "outputs": dict(zip(opened.outputs, results, strict=True))}
    return {
        side: [
            {"name": name, "shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")}
            for name, x in items.items()
        ]
        for side, items in tensors.items()
    }
