"""The target snapdragon: context binaries for the HTP, one for each chip."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from mvsdk.devices import Chipset
from mvsdk.manifest import ComputeUnit, Precision
from mvsdk_export.jobs.job import Job
from mvsdk_export.targets.artefact import Artefact
from mvsdk_export.targets.onnx.jobs import TraceOnnx
from mvsdk_export.targets.onnx.models import GraphSource, Models, plan_models, signature_names
from mvsdk_export.targets.snapdragon.jobs import CompileContext, StitchContexts
from mvsdk_export.targets.spec import Kind, Lowering, TargetSpec, VariantPlan


class SnapdragonTarget(TargetSpec[None]):
    """Context binaries of Qualcomm's compiler, in EPContext models that ONNX Runtime opens."""

    name = "snapdragon"
    target = "snapdragon"
    format = "qnn_context"
    preload = TraceOnnx.PRELOAD
    takes_chips = True
    kinds: ClassVar[Mapping[str, Kind]] = {
        "qnn_context": Kind(
            precisions=("w8a16", "fp16"),
            default=("w8a16",),
            extra="snapdragon",
            modules=("onnxruntime_qnn",),
            tools=("onnx", "onnxscript", "onnxruntime", "onnxruntime-qnn"),
        )
    }

    def read_options(self, options: argparse.Namespace) -> None:
        """Return None: there are none but the chips."""
        del options

    def default_options(self) -> None:
        """Return None."""

    def plan_variants(
        self, precisions: Sequence[Precision], *, chips: Sequence[Chipset], options: None
    ) -> tuple[VariantPlan, ...]:
        """Return a variant per precision and chip."""
        del options
        return tuple(
            VariantPlan(
                id=f"snapdragon-{chip.slug}-{precision}",
                target=self.target,
                precision=precision,
                spec=self.name,
                chipset=chip,
                format=self.format,
            )
            for precision in precisions
            for chip in chips
        )

    def plan_jobs(
        self, lowering: Lowering, plans: Sequence[VariantPlan], options: None
    ) -> dict[str, Job[Artefact]]:
        """Plan a model per precision, and of each a context per chip."""
        del options
        models: dict[Precision, Models] = {}
        for plan in plans:
            if plan.precision not in models:
                source = _source(plan.precision)
                models[plan.precision] = plan_models(lowering, source, parts=lowering.parts)
        return {plan.id: _compile(lowering, plan, models[plan.precision]) for plan in plans}

    def compute_unit(self, plan: VariantPlan, options: None) -> ComputeUnit:
        """Return the NPU."""
        del plan, options
        return "NPU"

    def is_shipped(self, path: Path) -> bool:
        """Return whether a file is a model or a context."""
        return path.suffix in (".onnx", ".bin", ".data")


def _source(precision: Precision) -> GraphSource:
    """Return which ONNX model a chip's compiler takes: float32 for float16."""
    if precision == "fp16":
        return GraphSource(precision="fp32", engine="htp_fp16")
    return GraphSource(precision=precision)


def _compile(lowering: Lowering, plan: VariantPlan, models: Models) -> Job[Artefact]:
    assert plan.chipset is not None
    chip = plan.chipset.slug
    pieces = tuple(
        CompileContext(
            name=f"compile {label} {plan.precision} for {chip}",
            memory_bytes=lowering.memory(3.0 / len(models.jobs), 2.0),
            source=job,
            chip=chip,
            float16=plan.precision == "fp16",
        )
        for label, job in zip(models.labels, models.jobs, strict=True)
    )
    if len(pieces) == 1:
        return pieces[0]
    inputs, outputs = signature_names(lowering.component)
    return StitchContexts(
        name=f"stitch {lowering.component.name} {plan.precision} for {chip}",
        pieces=pieces,
        inputs=inputs,
        outputs=outputs,
    )


SNAPDRAGON = SnapdragonTarget()
