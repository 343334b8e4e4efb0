"""The target onnx: ONNX models for the CPUs of computers and phones."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from mvsdk.devices import Chipset
from mvsdk.manifest import Precision
from mvsdk_export.jobs.job import Job
from mvsdk_export.targets.artefact import Artefact
from mvsdk_export.targets.onnx.jobs import TraceOnnx
from mvsdk_export.targets.onnx.models import GraphSource, plan_models
from mvsdk_export.targets.spec import Kind, Lowering, TargetSpec, VariantPlan, plan_by_kind

_ENGINES: Mapping[Precision, str] = {"fp32": "onnx_cpu", "fp16": "onnx_cpu"}
"""What graphs are written for; quantised ones are those that NPUs take, to check their numbers."""


class OnnxTarget(TargetSpec[None]):
    """ONNX models, which ONNX Runtime opens."""

    name = "onnx"
    target = "onnx"
    format = "onnx"
    is_phone = False
    preload = TraceOnnx.PRELOAD
    kinds: ClassVar[Mapping[str, Kind]] = {
        "onnx": Kind(
            precisions=("fp32", "fp16", "w8a16"),
            default=("fp32", "fp16", "w8a16"),
            extra="export",
            tools=("onnx", "onnxscript", "onnxruntime"),
        )
    }

    def read_options(self, options: argparse.Namespace) -> None:
        """Return None: there are none."""
        del options

    def default_options(self) -> None:
        """Return None."""

    def plan_variants(
        self, precisions: Sequence[Precision], *, chips: Sequence[Chipset], options: None
    ) -> tuple[VariantPlan, ...]:
        """Return a variant per precision."""
        del chips, options
        return plan_by_kind(self, precisions, "")

    def plan_jobs(
        self, lowering: Lowering, plans: Sequence[VariantPlan], options: None
    ) -> dict[str, Job[Artefact]]:
        """Plan models: whole, or joined of parts where a compiler would want parts too.

        In float32 weights of any size lie in a file beside a model: nothing is cut.
        """
        del options
        return {
            plan.id: plan_models(
                lowering,
                GraphSource(precision=plan.precision, engine=_ENGINES.get(plan.precision, "htp")),
                parts=1 if plan.precision == "fp32" else lowering.parts,
            ).joined(lowering)
            for plan in plans
        }

    def is_shipped(self, path: Path) -> bool:
        """Return whether a file is a model, or holds weights of one."""
        return path.suffix in (".onnx", ".bin", ".data")


ONNX = OnnxTarget()
