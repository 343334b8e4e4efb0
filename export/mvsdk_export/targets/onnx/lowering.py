"""Stages that lower one component by way of ONNX: from its traced graph to what a bundle ships.

A graph with too many weights is cut into parts (graphs/split.py). Each is finished or quantised
alone, and for a chip compiled alone; then they are joined to one model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvsdk_export.families import ComponentRecipe
from mvsdk_export.families.recipe import DENOISERS
from mvsdk_export.jobs.runner import Run, Stage
from mvsdk_export.planning.lowering import Lowering
from mvsdk_export.planning.request import GraphSource, VariantPlan, graph_source


def trace_graphs(
    run: Run, lowering: Lowering, subject: Mapping[str, Any], outside: Mapping[str, Any]
) -> dict[bool, Stage]:
    """Trace a component in every form that its variants are made of, see `Lowering.traces`.

    Args:
        run: Runs the stages.
        lowering: What will be made.
        subject: Which graph of which size, as stages take it.
        outside: Where its weights lie, as stages take it.
    """
    return {
        htp_float16: run(
            _name_graph("trace", lowering.component.name, htp_float16=htp_float16),
            "trace",
            arguments={**subject, "htp_float16": htp_float16},
            **outside,
        )
        for htp_float16 in lowering.traces
    }


def lower_graphs(
    run: Run, lowering: Lowering, traced: Mapping[bool, Stage], recorded: Stage | None
) -> dict[str, Stage]:
    """Make every wanted variant of a component that is made of its ONNX graph.

    Args:
        run: Runs the stages.
        lowering: What to make.
        traced: The float32 graphs, one for each of `Lowering.traces`.
        recorded: Calls of the reference that calibrate; None if nothing is quantised.

    Returns:
        Variant id -> the stage that made what is shipped. Its result has `inputs` and `outputs` as
        a manifest says them, and `delegation` if it was compiled.
    """
    return {
        **_lower_whole(run, lowering, traced, recorded),
        **_lower_parts(run, lowering, traced, recorded),
    }


def _lower_whole(
    run: Run, lowering: Lowering, traced: Mapping[bool, Stage], recorded: Stage | None
) -> dict[str, Stage]:
    component = lowering.component
    models: dict[GraphSource, Stage] = {}
    artefacts: dict[str, Stage] = {}
    for plan in lowering.whole_plans:
        source = graph_source(plan)
        if source not in models:
            graph = traced[source.htp_float16]
            models[source] = _make_model(run, component, source, graph, recorded)
        artefacts[plan.id] = _compile(run, component.name, plan, models[source])
    return artefacts


def _name_graph(verb: str, component: str, *, htp_float16: bool) -> str:
    return f"{verb} {component}{' for fp16' * htp_float16}"


def _make_model(
    run: Run,
    component: ComponentRecipe,
    source: GraphSource,
    traced: Stage,
    recorded: Stage | None,
) -> Stage:
    name, arguments = component.name, _bytes(component)
    if source.precision == "w8a16":
        return run(
            f"quantise {name}",
            "quantize",
            arguments={**arguments, "component": name, "split_last": _splits_last(component)},
            needs={"traced": traced, "recorded": recorded},
        )
    return run(
        f"finish {name} {source.label}",
        "finish",
        arguments={**arguments, "precision": source.precision},
        needs={"traced": traced},
    )


def _lower_parts(
    run: Run, lowering: Lowering, traced: Mapping[bool, Stage], recorded: Stage | None
) -> dict[str, Stage]:
    component, count = lowering.component, lowering.parts
    cut: dict[bool, Stage] = {}
    labels = [f"{component.name} part {index + 1} of {count}" for index in range(count)]
    borders = {
        "inputs": [tensor.name for tensor in component.inputs],
        "outputs": [tensor.name for tensor in component.outputs],
    }
    models: dict[GraphSource, list[Stage]] = {}
    artefacts: dict[str, Stage] = {}
    for plan in lowering.cut_plans:
        source = graph_source(plan)
        if source.htp_float16 not in cut:
            cut[source.htp_float16] = run(
                _name_graph("split", component.name, htp_float16=source.htp_float16),
                "split",
                arguments={"parts": count},
                needs={"traced": traced[source.htp_float16]},
            )
        if source not in models:
            split = cut[source.htp_float16]
            models[source] = (
                _quantize_parts(run, component, labels, split, recorded)
                if source.precision == "w8a16"
                else _finish_parts(run, component, labels, split, source)
            )
        pieces = [
            _compile(run, label, plan, model)
            for label, model in zip(labels, models[source], strict=True)
        ]
        verb = "join" if plan.chipset is None else "stitch"
        artefacts[plan.id] = run(
            f"{verb} {component.name} {plan.precision}{_for_chip(plan)}",
            verb,
            arguments=borders,
            needs={"pieces": pieces},
        )
    return artefacts


def _finish_parts(
    run: Run,
    component: ComponentRecipe,
    labels: Sequence[str],
    split: Stage,
    source: GraphSource,
) -> list[Stage]:
    return [
        run(
            f"finish {label} {source.label}",
            "finish_part",
            arguments={**_bytes(component), "precision": source.precision, "part": index},
            needs={"split": split},
        )
        for index, label in enumerate(labels)
    ]


def _quantize_parts(
    run: Run,
    component: ComponentRecipe,
    labels: Sequence[str],
    split: Stage,
    recorded: Stage | None,
) -> list[Stage]:
    """Quantise one part after the other: each takes what the parts before it give."""
    name = component.name
    needs = {"split": split, "recorded": recorded}
    evaluated = run(f"run {name} in parts", "evaluate", arguments={"component": name}, needs=needs)
    agreed: dict[str, tuple[float | None, int | None]] = {}
    stages: list[Stage] = []
    for index, label in enumerate(labels):
        arguments = {
            "component": name,
            "split_last": _splits_last(component),
            "part": index,
            "agreed": dict(agreed),
        }
        stage = run(
            f"quantise {label}",
            "quantize_part",
            arguments={**_bytes(component), **arguments},
            needs={**needs, "evaluated": evaluated},
        )
        for row in [*stage.result["inputs"], *stage.result["outputs"]]:
            agreed.setdefault(row["name"], (row["scale"], row["zero_point"]))
        stages.append(stage)
    return stages


def _compile(run: Run, label: str, plan: VariantPlan, source: Stage) -> Stage:
    """Compile a graph, or a part of one, for the chip of a variant; without one, leave it as is."""
    if plan.chipset is None:
        return source
    return run(
        f"compile {label} {plan.precision}{_for_chip(plan)}",
        "compile_chip",
        arguments={"chip": plan.chipset.slug, "float16": plan.precision == "fp16"},
        needs={"source": source},
    )


def _for_chip(plan: VariantPlan) -> str:
    return "" if plan.chipset is None else f" for {plan.chipset.slug}"


def _splits_last(component: ComponentRecipe) -> bool:
    """Return whether what a graph gives is integrated, so that its errors add up over the steps."""
    return component.role in DENOISERS


def _bytes(component: ComponentRecipe) -> Mapping[str, Any]:
    """Return which inputs and outputs cross as bytes, as functions of the toolchain take them."""
    return {
        "byte_inputs": [x.name for x in component.inputs if x.dtype == "uint8"],
        "byte_outputs": [x.name for x in component.outputs if x.dtype == "uint8"],
    }
