"""The target iphone in the format coreai: assets that Core AI opens from iOS 27 on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mvsdk.devices import Chipset
from mvsdk.manifest import ComputeUnit, Precision
from mvsdk_export.jobs.job import Job
from mvsdk_export.targets.artefact import Artefact
from mvsdk_export.targets.coreai.jobs import LowerCoreAI
from mvsdk_export.targets.coreml.spec import read_compute_unit
from mvsdk_export.targets.options import (
    COREAI_SYSTEMS,
    check_palettes,
    choose_system,
    read_count,
    read_formats,
)
from mvsdk_export.targets.spec import Kind, Lowering, TargetSpec, VariantPlan, plan_by_kind

DEFAULT_SYSTEM = COREAI_SYSTEMS[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreAIOptions:
    """How Core AI assets are made."""

    deployment_target: str = DEFAULT_SYSTEM
    """Minimum OS."""
    compute_unit: ComputeUnit = "NPU"
    """Where they are meant to run."""
    palette_group: int | None = None
    """Output channels that share a palette; None for what fits each weight."""


class CoreAITarget(TargetSpec[CoreAIOptions]):
    """Core AI assets. The options of the command line are those of Core ML (coreml/spec.py)."""

    name = "coreai"
    target = "iphone"
    format = "coreai"
    preload = LowerCoreAI.PRELOAD
    is_default = False
    kinds: ClassVar[Mapping[str, Kind]] = {
        "coreai": Kind(
            precisions=("fp32", "fp16", "w8", "w6", "w4"),
            default=("w8",),
            extra="coreai",
            modules=("coreai", "coreai_torch"),
            tools=("coreai-core", "coreai-torch", "coreai-opt"),
        )
    }

    option_names = ("format", "deployment_target", "compute_units", "palette_group")

    def is_chosen(self, options: argparse.Namespace) -> bool:
        """Return whether `--format`, or the minimum OS, means it."""
        return self.format in read_formats(options)

    def read_options(self, options: argparse.Namespace) -> CoreAIOptions:
        """Return what the options say."""
        return CoreAIOptions(
            deployment_target=choose_system(
                options.deployment_target,
                read_formats(options),
                "coreai",
                COREAI_SYSTEMS,
                DEFAULT_SYSTEM,
            ),
            compute_unit=read_compute_unit(options.compute_units),
            palette_group=read_count("--palette-group", options.palette_group, 1, 1 << 16),
        )

    def default_options(self) -> CoreAIOptions:
        """Return those of the first system that has Core AI."""
        return CoreAIOptions()

    def check_precisions(self, precisions: Sequence[Precision], options: CoreAIOptions) -> None:
        """Refuse groups of palettes where there are no palettes."""
        if options.palette_group is not None:
            check_palettes(precisions)

    def plan_variants(
        self,
        precisions: Sequence[Precision],
        *,
        chips: Sequence[Chipset],
        options: CoreAIOptions,
    ) -> tuple[VariantPlan, ...]:
        """Return a variant per precision."""
        del chips
        return plan_by_kind(self, precisions, "coreai", deployment_target=options.deployment_target)

    def plan_jobs(
        self, lowering: Lowering, plans: Sequence[VariantPlan], options: CoreAIOptions
    ) -> dict[str, Job[Artefact]]:
        """Plan an asset per precision."""
        return {
            plan.id: LowerCoreAI(
                name=f"lower {lowering.component.name} {plan.precision} to Core AI",
                memory_bytes=lowering.memory(5.0, 3.0),
                model=lowering.model,
                subject=lowering.subject,
                precision=plan.precision,
                target_db=lowering.target_db(plan),
                group=options.palette_group,
                recorded=lowering.calibration(plan),
            )
            for plan in plans
        }

    def compute_unit(self, plan: VariantPlan, options: CoreAIOptions) -> ComputeUnit:
        """Return what the options say."""
        del plan
        return options.compute_unit


COREAI = CoreAITarget()
