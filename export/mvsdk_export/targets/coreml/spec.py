"""The target iphone in the format coreml: packages that Core ML opens from iOS 17 on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mvsdk.devices import Chipset
from mvsdk.errors import InputError
from mvsdk.manifest import ComputeUnit, Precision
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.jobs.job import Job
from mvsdk_export.targets.artefact import Artefact, Nothing
from mvsdk_export.targets.coreml.jobs import (
    Attention,
    CompressCoreML,
    ConvertCoreML,
    FinishCoreML,
)
from mvsdk_export.targets.coreml.tools import check_tensor_names
from mvsdk_export.targets.options import (
    COREML_SYSTEMS,
    check_palettes,
    choose_system,
    read_choice,
    read_count,
    read_formats,
)
from mvsdk_export.targets.spec import (
    AddOption,
    Kind,
    Lowering,
    TargetSpec,
    VariantPlan,
    plan_by_kind,
)

DEFAULT_SYSTEM = "iOS18"
CHUNK_BYTES = 10**9
"""Weights of one Core ML graph on a phone, above which a package is a pipeline of chunks: a larger
one may run on the CPU whole, and no error says so (docs/neural_engine.md)."""
COMPUTE_UNITS: Mapping[str, ComputeUnit] = {
    "CPU_AND_NE": "NPU",
    "CPU_AND_GPU": "GPU",
    "CPU_ONLY": "CPU",
    "ALL": "ALL",
}
"""Core ML's names -> those of bundles."""
ATTENTIONS: Mapping[str, Attention] = {"fused": "fused", "split-einsum": "split_einsum"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMLOptions:
    """How Core ML packages are made."""

    deployment_target: str = DEFAULT_SYSTEM
    """Minimum OS."""
    compute_unit: ComputeUnit = "NPU"
    """Where they are meant to run."""
    attention: Attention = "fused"
    chunk_bytes: int = CHUNK_BYTES
    """Weights above which a package is a pipeline of chunks."""
    palette_group: int | None = None
    """Output channels that share a palette; None for what fits each weight."""


class CoreMLTarget(TargetSpec[CoreMLOptions]):
    """Core ML packages."""

    name = "coreml"
    target = "iphone"
    format = "coreml"
    preload = ConvertCoreML.PRELOAD
    kinds: ClassVar[Mapping[str, Kind]] = {
        "coreml": Kind(
            precisions=("fp16", "w8", "w6", "w4"),
            default=("w8",),
            extra="apple",
            modules=("coremltools",),
            tools=("coremltools",),
        )
    }
    help = """\
  --format F,...         coreml, coreai or both (default: coreml below iOS27)
  --deployment-target S  minimum OS: iOS17, iOS18, iOS26; iOS27 is coreai
                         (default: iOS18)
  --compute-units U      ALL, CPU_AND_NE, CPU_AND_GPU or CPU_ONLY
                         (default: CPU_AND_NE)
  --attention A          fused or split-einsum (default: fused, an operator of
                         its own from iOS18 on)
  --chunk-bytes N        weights above which a package is cut (default: 1 GB)
  --palette-group N      output channels that share a palette (default: up to
                         16, what divides the channels of a weight)
  --resources DIR        also write packages under the names that Apple's
                         Swift code for Stable Diffusion opens
"""
    option_names = (
        "format",
        "deployment_target",
        "compute_units",
        "attention",
        "chunk_bytes",
        "palette_group",
        "resources",
    )

    def add_options(self, add: AddOption) -> None:
        """Add the options of the target iphone, Core AI's among them."""
        from mvsdk.cli.command import whole_number

        for name in ("--format", "--deployment-target", "--compute-units", "--attention"):
            add(name, help=argparse.SUPPRESS)
        add("--resources", help=argparse.SUPPRESS)
        for name in ("--chunk-bytes", "--palette-group"):
            add(name, type=whole_number, help=argparse.SUPPRESS)

    def is_chosen(self, options: argparse.Namespace) -> bool:
        """Return whether `--format`, or the minimum OS, means it."""
        return self.format in read_formats(options)

    def read_options(self, options: argparse.Namespace) -> CoreMLOptions:
        """Return what the options say."""
        system = choose_system(
            options.deployment_target,
            read_formats(options),
            "coreml",
            COREML_SYSTEMS,
            DEFAULT_SYSTEM,
        )
        attention = read_choice("--attention", options.attention or "fused", ATTENTIONS)
        chunk_bytes = read_count("--chunk-bytes", options.chunk_bytes, 1 << 16, 1 << 40)
        return CoreMLOptions(
            deployment_target=system,
            compute_unit=read_compute_unit(options.compute_units),
            attention=ATTENTIONS[attention],
            chunk_bytes=CHUNK_BYTES if chunk_bytes is None else chunk_bytes,
            palette_group=read_count("--palette-group", options.palette_group, 1, 1 << 16),
        )

    def default_options(self) -> CoreMLOptions:
        """Return those of most apps: iOS 18, the Neural Engine."""
        return CoreMLOptions()

    def check_precisions(self, precisions: Sequence[Precision], options: CoreMLOptions) -> None:
        """Refuse groups of palettes where there are no palettes, or one for a whole weight."""
        if options.palette_group is None:
            return
        check_palettes(precisions)
        if options.deployment_target == "iOS17":
            raise InputError(
                "--palette-group goes with --deployment-target iOS18 or later: iOS17 knows one "
                "palette for a whole weight; leave it out"
            )

    def plan_variants(
        self,
        precisions: Sequence[Precision],
        *,
        chips: Sequence[Chipset],
        options: CoreMLOptions,
    ) -> tuple[VariantPlan, ...]:
        """Return a variant per precision."""
        del chips
        return plan_by_kind(self, precisions, "coreml", deployment_target=options.deployment_target)

    def check_component(self, component: ComponentRecipe, plan: VariantPlan) -> None:
        """Check that tensors keep their names."""
        del plan
        check_component_names(component)

    def plan_jobs(
        self, lowering: Lowering, plans: Sequence[VariantPlan], options: CoreMLOptions
    ) -> dict[str, Job[Artefact]]:
        """Plan one float16 package, and what has fewer bits of that."""
        name = lowering.component.name
        found: dict[str, Job[Artefact]] = {}
        for plan in plans:
            system = plan.deployment_target or options.deployment_target
            package: Job[Nothing] | Job[Artefact] = ConvertCoreML(
                name=f"convert {name} for {system}",
                memory_bytes=lowering.memory(4.0, 0.0),
                model=lowering.model,
                subject=lowering.subject,
                deployment_target=system,
                attention=options.attention,
            )
            recorded = lowering.calibration(plan)
            if recorded is not None:
                package = CompressCoreML(
                    name=f"compress {name} {plan.precision} for {system}",
                    memory_bytes=lowering.memory(4.0, 3.0),
                    model=lowering.model,
                    subject=lowering.subject,
                    attention=options.attention,
                    precision=plan.precision,
                    target_db=lowering.target_db(plan),
                    group=options.palette_group,
                    package=package,
                    recorded=recorded,
                )
            found[plan.id] = FinishCoreML(
                name=f"finish {name} {plan.precision} for {system}",
                memory_bytes=lowering.memory(2.0, 0.0),
                component=name,
                chunk_bytes=options.chunk_bytes,
                package=package,
            )
        return found

    def compute_unit(self, plan: VariantPlan, options: CoreMLOptions) -> ComputeUnit:
        """Return what the options say."""
        del plan
        return options.compute_unit


def read_compute_unit(text: str | None) -> ComputeUnit:
    """Return where packages are meant to run, as `--compute-units` says.

    Raises:
        InputError: If it is no name of Core ML's.
    """
    return COMPUTE_UNITS[read_choice("--compute-units", text or "CPU_AND_NE", COMPUTE_UNITS)]


def check_component_names(component: ComponentRecipe) -> None:
    """Check that the tensors of a component keep their names in a Core ML package.

    Raises:
        ExportError: If not.
    """
    tensors = (*component.inputs, *component.outputs)
    check_tensor_names(component.name, [tensor.name for tensor in tensors])


COREML = CoreMLTarget()
