"""Models to cut into parts, and what makes, changes and runs the parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mvsdk_export.graphs.onnx import (
    OPSET_VERSION,
    convert_float16,
    export_onnx,
    quantize_signature,
    save_model,
)
from mvsdk_export.graphs.split import Part, agree_float16, agree_quantized, crossing_values
from mvsdk_export.layers.blocks import (
    GroupNorm,
    ResidualBlock,
    SpatialAttention,
    TemporalAttention,
)
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.quantize.qdq import quantize_w8a16

FRAMES, CHANNELS, SIZE = 2, 32, 8
INPUTS = {"sample": (FRAMES, 4, SIZE, SIZE), "embedding": (1, 16)}
Arrays = dict[str, NDArray[Any]]
Borders = dict[str, tuple[float, int]]
"""Name of a value between parts, or of the whole -> its scale and zero point."""
Shape = tuple[int | str, ...]


class Hourglass(nn.Module):
    """A small denoiser with skip connections, an embedding that every block reads, attention."""

    def __init__(self) -> None:
        super().__init__()
        wide = 2 * CHANNELS
        self.conv_in = nn.Conv2d(4, CHANNELS, 3, padding=1)
        self.down = ResidualBlock(CHANNELS, CHANNELS, embedding_dim=16)
        self.halve = nn.Conv2d(CHANNELS, wide, 3, stride=2, padding=1)
        self.attention = SpatialAttention(wide)
        self.frames = TemporalAttention(wide)
        self.middle = ResidualBlock(wide, wide, embedding_dim=16)
        self.up = ResidualBlock(wide + CHANNELS, CHANNELS, embedding_dim=16)
        self.norm = GroupNorm(16, 2 * CHANNELS)
        self.conv_out = nn.Conv2d(2 * CHANNELS, 4, 3, padding=1)
        for parameter in self.parameters():  # blocks start as identities otherwise
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)

    def forward(self, sample: Tensor, embedding: Tensor) -> Tensor:
        """Map `(F, 4, H, W)` and `(1, 16)` to `(F, 4, H, W)`."""
        first = self.conv_in(sample)
        skip = self.down(first, embedding)
        x = self.frames(self.attention(self.halve(skip)), FRAMES)
        x = nn.functional.interpolate(self.middle(x, embedding), scale_factor=2.0)
        x = self.up(torch.cat([x, skip], dim=1), embedding)
        return self.conv_out(self.norm(torch.cat([x, first], dim=1)))


def write_hourglass(path: Path) -> Path:
    """Write the small denoiser as a model with the output `model_output`."""
    torch.manual_seed(0)
    inputs = {name: torch.zeros(shape) for name, shape in INPUTS.items()}
    export_onnx(select_implementations_(Hourglass(), "htp"), inputs, ["model_output"], path)
    return path


def make_feeds() -> list[Arrays]:
    """Return some inputs of the small denoiser."""
    generator = np.random.default_rng(1)
    return [
        {name: generator.normal(size=shape).astype(np.float32) for name, shape in INPUTS.items()}
        for _ in range(4)
    ]


def make_model(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    *,
    outputs: Mapping[str, Shape],
    inputs: Mapping[str, Shape] | None = None,
) -> onnx.ModelProto:
    """Return a model of float32 values; without `inputs` it takes x, of 8 numbers."""
    takes, gives = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in values.items()]
        for values in (inputs or {"x": (1, 8)}, outputs)
    )
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", takes, gives, tensors)
    opset = helper.make_opsetid("", OPSET_VERSION)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def run_model(source: Path | onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> Arrays:
    """Run a model as it stands: optimisers fuse differently in parts and in the whole."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = str(source) if isinstance(source, Path) else source.SerializeToString()
    return run_session(ort.InferenceSession(model, options, ["CPUExecutionProvider"]), values)


def run_session(session: Any, values: Mapping[str, NDArray[Any]]) -> Arrays:
    """Run a session with those of the values that it takes."""
    names = [value.name for value in session.get_outputs()]
    found = session.run(names, {x.name: values[x.name] for x in session.get_inputs()})
    return dict(zip(names, found, strict=True))


def run_parts(parts: Sequence[Part], values: Arrays) -> Arrays:
    for part in parts:
        values = values | run_model(part.path, values)
    return values


def quantize_parts(
    parts: Sequence[Part], feeds: list[Arrays], folder: Path
) -> tuple[list[Path], Borders]:
    """Quantise parts one after the other; return their models and what all borders mean."""
    folder.mkdir(exist_ok=True)
    made: Borders = {}
    models: list[Path] = []
    for part in parts:
        needed = [{name: feed[name] for name in part.inputs} for feed in feeds]
        target = folder / part.path.name
        quantize_w8a16(part.path, target, needed)
        model = onnx.load(target)
        agree_quantized(model, made)
        made |= quantize_signature(model)
        save_model(model, target)
        models.append(target)
        feeds = [feed | run_model(part.path, feed) for feed in feeds]
    return models, made


def as_integers(values: Arrays, borders: Borders) -> Arrays:
    """Return values as quantised models take them."""

    def convert(value: NDArray[Any], scale: float, zero_point: int) -> NDArray[Any]:
        return np.clip(np.rint(value / scale) + zero_point, 0, 65535).astype(np.uint16)

    return {name: convert(value, *borders[name]) for name, value in values.items()}


def as_numbers(value: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.float32]:
    """Return what integers of a quantised model mean."""
    return (value.astype(np.float32) - zero_point) * np.float32(scale)


def halve_parts(parts: Sequence[Part], folder: Path) -> list[Path]:
    """Convert parts to float16, and what crosses between them."""
    folder.mkdir(exist_ok=True)
    for part in parts:
        model = convert_float16(onnx.load(part.path))
        agree_float16(model, crossing_values(parts))
        save_model(model, folder / part.path.name)
    return [folder / part.path.name for part in parts]
