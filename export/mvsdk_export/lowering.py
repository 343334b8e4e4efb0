"""Stages that lower one component: from its traced graph to what a bundle ships.

A graph with too many weights is cut into parts (targets/split.py). Each is finished or quantised
alone, and for a chip compiled alone; then they are joined to one model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvsdk.manifest import Precision
from mvsdk_export.recipes import ComponentRecipe
from mvsdk_export.request import VariantPlan, source_precision
from mvsdk_export.stages import Run, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """What is made of one component."""

    component: ComponentRecipe
    plans: tuple[VariantPlan, ...]
    """Variants that are wanted."""
    parts: int
    """Parts that the graph is cut into; 1: it is not."""

    @property
    def whole_plans(self) -> tuple[VariantPlan, ...]:
        """Variants that are made of the graph in one piece."""
        return tuple(plan for plan in self.plans if not self._is_cut(plan))

    @property
    def cut_plans(self) -> tuple[VariantPlan, ...]:
        """Variants that are made of the parts of the graph."""
        return tuple(plan for plan in self.plans if self._is_cut(plan))

    def count_stages(self) -> int:
        """Return how many stages `lower` runs."""
        whole = len(_sources(self.whole_plans)) + len(_compiled(self.whole_plans))
        if not self.cut_plans:
            return whole
        sources, compiled = _sources(self.cut_plans), _compiled(self.cut_plans)
        once = 1 + int("w8a16" in sources)  # split, and run in parts
        return whole + once + self.parts * (len(sources) + len(compiled)) + len(self.cut_plans)

    def _is_cut(self, plan: VariantPlan) -> bool:
        """Tell whether a variant needs parts: ONNX keeps float32 weights of any size in a file."""
        return self.parts > 1 and (plan.target, plan.precision) != ("onnx", "fp32")


def lower(run: Run, lowering: Lowering, traced: Stage, recorded: Stage | None) -> dict[str, Stage]:
    """Make every wanted variant of a component.

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


def _sources(plans: Sequence[VariantPlan]) -> set[Precision]:
    return {source_precision(plan) for plan in plans}


def _compiled(plans: Sequence[VariantPlan]) -> list[VariantPlan]:
    return [plan for plan in plans if plan.chipset is not None]
