"""Jobs by way of ONNX: from the traced graph of a component to models at every precision.

A graph with too many weights is cut into parts (graphs/split.py). Each is finished or quantised
alone, and for a chip compiled alone; then they are joined to one model again.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvsdk.manifest import Precision
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.families.recipe import DENOISERS
from mvsdk_export.jobs.job import Job
from mvsdk_export.targets.artefact import Artefact, Nothing
from mvsdk_export.targets.onnx.jobs import (
    EvaluateParts,
    FinishOnnx,
    FinishPart,
    JoinParts,
    PixelTensors,
    QuantizeOnnx,
    QuantizePart,
    SplitOnnx,
    TraceOnnx,
)
from mvsdk_export.targets.spec import Lowering


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource:
    """Which ONNX model a variant is made of."""

    precision: Precision
    engine: str = "htp"
    """What its layers are implemented for."""

    @property
    def label(self) -> str:
        """What a job that makes it is called by."""
        return "for fp16" if self.engine == "htp_fp16" else self.precision

    @property
    def suffix(self) -> str:
        """What tells the trace for its engine from the others."""
        return _SUFFIXES.get(self.engine, f" for {self.engine}")


_SUFFIXES = {"htp": "", "htp_fp16": " for fp16", "onnx_cpu": " for CPUs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The models that a component became: one, or one for each of its parts."""

    precision: Precision
    labels: tuple[str, ...]
    """What they are called: the component, or its parts."""
    jobs: tuple[Job[Artefact], ...]

    def joined(self, lowering: Lowering) -> Job[Artefact]:
        """Return the job that makes one model of them."""
        if len(self.jobs) == 1:
            return self.jobs[0]
        inputs, outputs = signature_names(lowering.component)
        return JoinParts(
            name=f"join {lowering.component.name} {self.precision}",
            memory_bytes=lowering.memory(2.0, 0.0),
            pieces=self.jobs,
            inputs=inputs,
            outputs=outputs,
        )


def signature_names(component: ComponentRecipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a component's inputs and outputs."""
    return (
        tuple(tensor.name for tensor in component.inputs),
        tuple(tensor.name for tensor in component.outputs),
    )


def plan_models(lowering: Lowering, source: GraphSource, *, parts: int) -> Models:
    """Plan the models of a component at one precision.

    Args:
        lowering: The component.
        source: Precision and engine.
        parts: Parts that its graph is cut into; 1: it is not.
    """
    name = lowering.component.name
    traced = TraceOnnx(
        name=f"trace {name}{source.suffix}",
        memory_bytes=lowering.memory(4.0, 0.0),
        model=lowering.model,
        subject=lowering.subject,
        engine=source.engine,
    )
    if parts > 1:
        return _plan_parts(lowering, source, traced, parts)
    if source.precision == "w8a16":
        assert lowering.recorded is not None
        whole: Job[Artefact] = QuantizeOnnx(
            name=f"quantise {name}",
            memory_bytes=lowering.memory(5.0, 3.0),
            traced=traced,
            recorded=lowering.recorded,
            component=name,
            split_last=_splits_last(lowering.component),
            pixels=_pixels(lowering.component),
        )
    else:
        whole = FinishOnnx(
            name=f"finish {name} {source.label}",
            memory_bytes=lowering.memory(3.0, 0.0),
            traced=traced,
            pixels=_pixels(lowering.component),
            precision=source.precision,
        )
    return Models(precision=source.precision, labels=(name,), jobs=(whole,))


def _plan_parts(
    lowering: Lowering, source: GraphSource, traced: Job[Nothing], parts: int
) -> Models:
    name = lowering.component.name
    split = SplitOnnx(
        name=f"split {name}{source.suffix}",
        memory_bytes=lowering.memory(1.0, 0.0),
        traced=traced,
        parts=parts,
    )
    labels = tuple(f"{name} part {index + 1} of {parts}" for index in range(parts))
    jobs = (
        _quantize_parts(lowering, labels, split)
        if source.precision == "w8a16"
        else tuple(
            FinishPart(
                name=f"finish {label} {source.label}",
                memory_bytes=lowering.memory(3.0 / parts, 0.0),
                split=split,
                part=index,
                pixels=_pixels(lowering.component),
                precision=source.precision,
            )
            for index, label in enumerate(labels)
        )
    )
    return Models(precision=source.precision, labels=labels, jobs=jobs)


def _quantize_parts(
    lowering: Lowering, labels: tuple[str, ...], split: SplitOnnx
) -> tuple[Job[Artefact], ...]:
    """Quantise one part after the other: each takes what the parts before it give."""
    name = lowering.component.name
    assert lowering.recorded is not None
    evaluated = EvaluateParts(
        name=f"run {name} in parts",
        memory_bytes=lowering.memory(1.5, 3.0),
        split=split,
        recorded=lowering.recorded,
        component=name,
    )
    jobs: list[Job[Artefact]] = []
    for index, label in enumerate(labels):
        jobs.append(
            QuantizePart(
                name=f"quantise {label}",
                memory_bytes=lowering.memory(5.0 / len(labels), 3.0),
                split=split,
                evaluated=evaluated,
                recorded=lowering.recorded,
                earlier=tuple(jobs),
                component=name,
                split_last=_splits_last(lowering.component),
                part=index,
                pixels=_pixels(lowering.component),
            )
        )
    return tuple(jobs)


def _splits_last(component: ComponentRecipe) -> bool:
    """Return whether what a graph gives is integrated, so that its errors add up over the steps."""
    return component.role in DENOISERS


def _pixels(component: ComponentRecipe) -> PixelTensors:
    return PixelTensors(
        inputs=tuple(x.name for x in component.inputs if x.dtype == "uint8"),
        outputs=tuple(x.name for x in component.outputs if x.dtype == "uint8"),
    )
