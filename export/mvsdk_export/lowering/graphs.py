"""Stages that lower one component by way of ONNX: from its traced graph to what a bundle ships.

A graph with too many weights is cut into parts (targets/split.py). Each is finished or quantised
alone, and for a chip compiled alone; then they are joined to one model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvsdk.manifest import Precision
from mvsdk_export.lowering.spec import Lowering
from mvsdk_export.recipes import ComponentRecipe
from mvsdk_export.request import VariantPlan, source_precision
from mvsdk_export.stages import Run, Stage


def lower_graphs(
    run: Run, lowering: Lowering, traced: Stage, recorded: Stage | None
) -> dict[str, Stage]:
    """Make every wanted variant of a component that is made of its ONNX graph.

    Args:
        run: Runs the stages.
        lowering: What to make.
        traced: The float32 graph.
        recorded: Calls of the reference that calibrate; None if nothing is quantised.

    Returns:
        Variant id -> the stage that made what is shipped. Its result has `inputs` and `outputs` as
        a manifest says them, and `residency` if it was compiled.
    """
    return {
        **_lower_whole(run, lowering, traced, recorded),
        **_lower_parts(run, lowering, traced, recorded),
    }


def _lower_whole(
    run: Run, lowering: Lowering, traced: Stage, recorded: Stage | None
) -> dict[str, Stage]:
    models: dict[Precision, Stage] = {}
    artefacts: dict[str, Stage] = {}
    for plan in lowering.whole_plans:
        precision = source_precision(plan)
        if precision not in models:
            models[precision] = _make_model(run, lowering.component, precision, traced, recorded)
        artefacts[plan.id] = _compile(run, lowering.component.name, plan, models[precision])
    return artefacts


def _make_model(
    run: Run,
    component: ComponentRecipe,
    precision: Precision,
    traced: Stage,
    recorded: Stage | None,
) -> Stage:
    name, arguments = component.name, _bytes(component)
    if precision == "w8a16":
        return run(
            f"quantise {name}",
            "quantize",
            arguments={**arguments, "component": name},
            needs={"traced": traced, "recorded": recorded},
        )
    return run(
        f"finish {name} {precision}",
        "finish",
        arguments={**arguments, "precision": precision},
        needs={"traced": traced},
    )


def _lower_parts(
    run: Run, lowering: Lowering, traced: Stage, recorded: Stage | None
) -> dict[str, Stage]:
    component, count = lowering.component, lowering.parts
    if not lowering.cut_plans:
        return {}
    split = run(
        f"split {component.name}", "split", arguments={"parts": count}, needs={"traced": traced}
    )
    labels = [f"{component.name} part {index + 1} of {count}" for index in range(count)]
    borders = {
        "inputs": [tensor.name for tensor in component.inputs],
        "outputs": [tensor.name for tensor in component.outputs],
    }
    models: dict[Precision, list[Stage]] = {}
    artefacts: dict[str, Stage] = {}
    for plan in lowering.cut_plans:
        precision = source_precision(plan)
        if precision not in models:
            models[precision] = (
                _quantize_parts(run, component, labels, split, recorded)
                if precision == "w8a16"
                else _finish_parts(run, component, labels, split, precision)
            )
        pieces = [
            _compile(run, label, plan, model)
            for label, model in zip(labels, models[precision], strict=True)
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
    precision: Precision,
) -> list[Stage]:
    return [
        run(
            f"finish {label} {precision}",
            "finish_part",
            arguments={**_bytes(component), "precision": precision, "part": index},
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
        arguments = {"component": name, "part": index, "agreed": dict(agreed)}
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


def _bytes(component: ComponentRecipe) -> Mapping[str, Any]:
    """Return which inputs and outputs cross as bytes, as functions of the toolchain take them."""
    return {
        "byte_inputs": [x.name for x in component.inputs if x.dtype == "uint8"],
        "byte_outputs": [x.name for x in component.outputs if x.dtype == "uint8"],
    }
