"""Stages that lower one component from PyTorch: to Core ML, Core AI and ExecuTorch.

A Core ML package is converted once, in float16; what has fewer bits is made of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mvsdk_export.jobs.runner import Run, Stage
from mvsdk_export.planning.lowering import Lowering
from mvsdk_export.planning.request import AppleOptions, ExecuTorchOptions, VariantPlan, needs_calls

MARGIN_DB = 3.0
"""Weights are compressed to stay this much above the floor on the calls that they are measured on:
others are not quite like these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the network of a component comes from."""

    subject: Mapping[str, Any]
    """Its name, sizes and guidance, as functions of the toolchain take them."""
    outside: Mapping[str, Any]
    """Paths and fingerprint of the model folder, as `StageRunner.run` takes them."""
    apple: AppleOptions
    executorch: ExecuTorchOptions


def lower_networks(
    run: Run, lowering: Lowering, source: Source, recorded: Stage | None
) -> dict[str, Stage]:
    """Make every wanted variant of a component that is made of its PyTorch network.

    Args:
        run: Runs the stages.
        lowering: What to make.
        source: Where its network comes from.
        recorded: Calls of the reference that calibrate; None if nothing needs them.

    Returns:
        Variant id -> the stage that made what is shipped; results as `lower_graphs` has them.
    """
    converted: dict[str | None, Stage] = {}
    artefacts: dict[str, Stage] = {}
    for plan in lowering.network_plans:
        if plan.format == "coreml":
            if plan.deployment_target not in converted:
                converted[plan.deployment_target] = _convert(run, plan, source)
            package = converted[plan.deployment_target]
            if plan.precision != "fp16":
                package = _compress(run, lowering, plan, source, package, recorded)
            artefacts[plan.id] = _finish(run, lowering, plan, source, package)
        elif plan.format == "coreai":
            artefacts[plan.id] = _lower_coreai(run, lowering, plan, source, recorded)
        else:
            artefacts[plan.id] = _lower_executorch(run, lowering, plan, source, recorded)
    return artefacts


def _convert(run: Run, plan: VariantPlan, source: Source) -> Stage:
    return run(
        f"convert {source.subject['component']} for {plan.deployment_target}",
        "convert_coreml",
        arguments={
            "subject": source.subject,
            "deployment_target": plan.deployment_target,
            "attention": source.apple.attention,
        },
        **source.outside,
    )


def _compress(
    run: Run,
    lowering: Lowering,
    plan: VariantPlan,
    source: Source,
    package: Stage,
    recorded: Stage | None,
) -> Stage:
    return run(
        f"compress {lowering.component.name} {plan.precision} for {plan.deployment_target}",
        "compress_coreml",
        arguments={
            "subject": source.subject,
            "attention": source.apple.attention,
            "precision": plan.precision,
            "target_db": lowering.floors_db[plan.precision] + MARGIN_DB,
            "group": source.apple.palette_group,
        },
        needs={"package": package, "recorded": recorded},
        **source.outside,
    )


def _finish(
    run: Run, lowering: Lowering, plan: VariantPlan, source: Source, package: Stage
) -> Stage:
    return run(
        f"finish {lowering.component.name} {plan.precision} for {plan.deployment_target}",
        "finish_coreml",
        arguments={
            "component": lowering.component.name,
            "chunk_bytes": source.apple.chunk_bytes,
        },
        needs={"package": package},
    )


def _lower_coreai(
    run: Run, lowering: Lowering, plan: VariantPlan, source: Source, recorded: Stage | None
) -> Stage:
    return run(
        f"lower {lowering.component.name} {plan.precision} to Core AI",
        "lower_coreai",
        arguments={
            "subject": source.subject,
            "precision": plan.precision,
            "target_db": lowering.floors_db[plan.precision] + MARGIN_DB,
            "group": source.apple.palette_group,
        },
        needs={"recorded": recorded} if needs_calls(plan) else {},
        **source.outside,
    )


def _lower_executorch(
    run: Run, lowering: Lowering, plan: VariantPlan, source: Source, recorded: Stage | None
) -> Stage:
    return run(
        f"lower {lowering.component.name} {plan.precision} to ExecuTorch {plan.delegate}",
        "lower_executorch",
        arguments={
            "subject": source.subject,
            "delegate": plan.delegate,
            "precision": plan.precision,
            "deployment_target": plan.deployment_target,
            "target_db": lowering.floors_db[plan.precision] + MARGIN_DB,
            "external_weights": source.executorch.external_weights,
            "etrecord": source.executorch.etrecord,
        },
        needs={"recorded": recorded} if needs_calls(plan) else {},
        **source.outside,
    )
