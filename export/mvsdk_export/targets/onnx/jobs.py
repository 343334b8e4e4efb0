"""Jobs that make ONNX models: a target of their own, and what a chip's compiler reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from mvsdk_export.checkpoints.subject import Subject, open_files
from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.limits import PROTOBUF_LIMIT_BYTES
from mvsdk_export.jobs.job import Files, Inputs, Job
from mvsdk_export.quantize.activations import Recorded, calibration_inputs
from mvsdk_export.targets.artefact import MODEL, Artefact, Nothing, to_rows

if TYPE_CHECKING:
    import onnx

    from mvsdk_export.graphs.split import Part

_TRACING = (
    "torch._dynamo",
    "torch.onnx._internal.exporter._core",
    "mvsdk_export.graphs.onnx",
    "mvsdk_export.checkpoints.weights",
)
_GRAPHS = ("mvsdk_export.graphs.onnx", "mvsdk_export.graphs.split")
_QUANTIZING = (*_GRAPHS, "mvsdk_export.quantize.qdq", "mvsdk_export.quantize.part_inputs")


class Parts(TypedDict):
    """The parts that a graph was cut into."""

    parts: list[dict[str, Any]]
    """As `mvsdk_export.graphs.split.Part`."""


class Evaluated(TypedDict):
    """The float32 values between parts."""

    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelTensors:
    """Inputs and outputs that a model takes and gives as bytes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceOnnx(Job[Nothing]):
    """Lower one component to float32 ONNX, as its layers are implemented on an engine."""

    model: Files
    subject: Subject
    engine: str
    """One of `layers.selection.ENGINES`."""

    PRELOAD: ClassVar[tuple[str, ...]] = _TRACING

    def run(self, inputs: Inputs, output: Path) -> Nothing:
        """Write the model."""
        from mvsdk_export.graphs.onnx import export_onnx
        from mvsdk_export.layers.selection import select_implementations_

        folder = open_files(self.model)
        network = select_implementations_(self.subject.load(folder), self.engine)
        examples = self.subject.example_inputs(folder)
        outputs = [tensor.name for tensor in self.subject.recipe(folder).outputs]
        export_onnx(network, examples, outputs, output / MODEL)
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishOnnx(Job[Artefact]):
    """Make the float32 or float16 model of a component, inputs and outputs of bytes included."""

    traced: Job[Nothing]
    pixels: PixelTensors
    precision: str

    PRELOAD: ClassVar[tuple[str, ...]] = _GRAPHS

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the model."""
        import onnx

        from mvsdk_export.graphs.onnx import convert_float16, save_model

        model = onnx.load(inputs[self.traced].folder / MODEL)
        _cross_as_bytes(model, self.pixels)
        if self.precision == "fp16":
            model = convert_float16(model)
        save_model(model, output / MODEL)
        return _signature(output / MODEL, {})


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizeOnnx(Job[Artefact]):
    """Quantise a component to w8a16 on recorded activations."""

    traced: Job[Nothing]
    recorded: Job[Recorded]
    component: str
    split_last: bool
    """Whether the last layer has two terms: what it gives is integrated over the steps."""
    pixels: PixelTensors

    PRELOAD: ClassVar[tuple[str, ...]] = _QUANTIZING

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the model."""
        import onnx

        from mvsdk_export.graphs.onnx import quantize_signature, save_model
        from mvsdk_export.quantize.qdq import quantize_w8a16

        feeds = calibration_inputs(inputs[self.recorded].folder, self.component)
        source = inputs[self.traced].folder / MODEL
        quantize_w8a16(source, output / MODEL, feeds, split_last=self.split_last)
        model = onnx.load(output / MODEL)
        _cross_as_bytes(model, self.pixels)
        quantized = quantize_signature(model)
        save_model(model, output / MODEL)
        return {**_signature(output / MODEL, quantized), "calibration_inputs": len(feeds)}


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitOnnx(Job[Parts]):
    """Cut the graph of a component into parts of about equal weight."""

    traced: Job[Nothing]
    parts: int

    PRELOAD: ClassVar[tuple[str, ...]] = _GRAPHS

    def run(self, inputs: Inputs, output: Path) -> Parts:
        """Write a model per part."""
        from mvsdk_export.graphs.split import split_model

        source = inputs[self.traced].folder / MODEL
        parts = split_model(source, output, parts=self.parts, most_bytes=PROTOBUF_LIMIT_BYTES)
        return {"parts": [asdict(part) | {"path": part.path.name} for part in parts]}


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluateParts(Job[Evaluated]):
    """Run the parts of a component on its recorded calls, one after the other, in float32."""

    split: Job[Parts]
    recorded: Job[Recorded]
    component: str

    PRELOAD: ClassVar[tuple[str, ...]] = _QUANTIZING

    def run(self, inputs: Inputs, output: Path) -> Evaluated:
        """Write what crosses the cuts, by part and call."""
        from mvsdk_export.quantize.part_inputs import evaluate_parts

        feeds = calibration_inputs(inputs[self.recorded].folder, self.component)
        evaluate_parts(_parts(inputs, self.split), feeds, output)
        return {"calls": len(feeds)}


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishPart(Job[Artefact]):
    """Make a float32 or float16 part of a component; other parts take and give float16."""

    split: Job[Parts]
    part: int
    pixels: PixelTensors
    precision: str

    PRELOAD: ClassVar[tuple[str, ...]] = _GRAPHS

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the model."""
        import onnx

        from mvsdk_export.graphs.onnx import convert_float16, save_model
        from mvsdk_export.graphs.split import agree_float16, crossing_values

        parts = _parts(inputs, self.split)
        model = onnx.load(parts[self.part].path)
        _cross_as_bytes(model, self.pixels)
        if self.precision == "fp16":
            model = convert_float16(model)
        agree_float16(model, crossing_values(parts))
        save_model(model, output / MODEL)
        return _signature(output / MODEL, {})


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizePart(Job[Artefact]):
    """Quantise a part of a component to w8a16; earlier parts say how what crosses is stored."""

    split: Job[Parts]
    evaluated: Job[Evaluated]
    recorded: Job[Recorded]
    earlier: tuple[Job[Artefact], ...]
    """The parts before it."""
    component: str
    split_last: bool
    part: int
    pixels: PixelTensors

    PRELOAD: ClassVar[tuple[str, ...]] = _QUANTIZING

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the model."""
        import onnx

        from mvsdk_export.graphs.onnx import quantize_signature, save_model
        from mvsdk_export.graphs.split import agree_quantized, crossing_values
        from mvsdk_export.quantize.part_inputs import PartFeeds
        from mvsdk_export.quantize.qdq import quantize_w8a16

        parts = _parts(inputs, self.split)
        calls = calibration_inputs(inputs[self.recorded].folder, self.component)
        feeds = PartFeeds(parts, self.part, calls, inputs[self.evaluated].folder)
        is_last = not crossing_values(parts).issuperset(parts[self.part].outputs)
        quantize_w8a16(
            parts[self.part].path,
            output / MODEL,
            feeds,
            split_last=is_last and self.split_last,
        )
        model = onnx.load(output / MODEL)
        _cross_as_bytes(model, self.pixels)
        agreed = self._agreed(inputs)
        stored = {
            name: (scale, zero_point)
            for name, (scale, zero_point) in agreed.items()
            if scale is not None and zero_point is not None
        }
        agree_quantized(model, stored)
        quantized = stored | quantize_signature(model, keep=agreed.keys() - stored.keys())
        save_model(model, output / MODEL)
        return {**_signature(output / MODEL, quantized), "calibration_inputs": len(feeds)}

    def _agreed(self, inputs: Inputs) -> dict[str, tuple[float | None, int | None]]:
        """Return scale and zero point of what earlier parts give and take.

        None for what they left in floating point.
        """
        agreed: dict[str, tuple[float | None, int | None]] = {}
        for other in self.earlier:
            result = inputs[other].result
            for row in [*result["inputs"], *result["outputs"]]:
                agreed.setdefault(row["name"], (row["scale"], row["zero_point"]))
        return agreed


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinParts(Job[Artefact]):
    """Join the finished or quantised parts of a component."""

    pieces: tuple[Job[Artefact], ...]
    inputs: tuple[str, ...]
    """Of the whole."""
    outputs: tuple[str, ...]

    PRELOAD: ClassVar[tuple[str, ...]] = ("mvsdk_export.graphs.join",)

    def run(self, inputs: Inputs, output: Path) -> Artefact:
        """Write the model."""
        from mvsdk_export.graphs.join import join_models

        paths = [inputs[piece].folder / MODEL for piece in self.pieces]
        join_models(paths, output / MODEL, outputs=self.outputs)
        results = [inputs[piece].result for piece in self.pieces]
        return whole_signature(results, self.inputs, self.outputs)


def whole_signature(
    pieces: Sequence[Artefact], inputs: Sequence[str], outputs: Sequence[str]
) -> Artefact:
    """Return the I/O signature of what was cut, as its parts have it.

    Raises:
        ExportError: If no part has an input or output of that name.
    """
    sides = (
        _pick("inputs", inputs, [row for piece in pieces for row in piece["inputs"]]),
        _pick("outputs", outputs, [row for piece in pieces for row in piece["outputs"]]),
    )
    return {"model": MODEL, "inputs": sides[0], "outputs": sides[1]}


def _pick(side: str, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    known = {row["name"]: row for row in rows}
    if missing := [name for name in names if name not in known]:
        raise ExportError(
            f"{missing[0]!r} is among the {side} of no part; a network that does not use it "
            "cannot be cut: raise part_bytes"
        )
    return [known[name] for name in names]


def _parts(inputs: Inputs, split: Job[Parts]) -> list[Part]:
    from mvsdk_export.graphs.split import Part

    found = inputs[split]
    return [
        Part(
            path=found.folder / row["path"],
            inputs=tuple(row["inputs"]),
            outputs=tuple(row["outputs"]),
            nodes=row["nodes"],
            weight_bytes=row["weight_bytes"],
        )
        for row in found.result["parts"]
    ]


def _cross_as_bytes(model: onnx.ModelProto, pixels: PixelTensors) -> None:
    """Let those of the inputs and outputs be bytes that the model has; it may be a part of one."""
    from mvsdk_export.graphs.onnx import append_byte_output, prepend_byte_input

    for value in model.graph.input:
        if value.name in pixels.inputs:
            prepend_byte_input(model, value.name)
    for value in model.graph.output:
        if value.name in pixels.outputs:
            append_byte_output(model, value.name)


def _signature(path: Path, quantized: Mapping[str, tuple[float, int]]) -> Artefact:
    import onnx

    from mvsdk_export.graphs.onnx import tensor_specs

    graph = onnx.load(path, load_external_data=False).graph
    return {
        "model": MODEL,
        "inputs": to_rows(tensor_specs(graph.input, quantized)),
        "outputs": to_rows(tensor_specs(graph.output, quantized)),
    }
