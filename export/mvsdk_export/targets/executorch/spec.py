"""The target executorch: programs for XNNPACK on CPUs, or for the Core ML delegate."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from mvsdk.devices import Chipset
from mvsdk.errors import InputError
from mvsdk.manifest import ComputeUnit, Delegate, Precision
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.jobs.job import Job
from mvsdk_export.targets.artefact import Artefact
from mvsdk_export.targets.coreml.spec import DEFAULT_SYSTEM, check_component_names
from mvsdk_export.targets.executorch.jobs import LowerExecuTorch
from mvsdk_export.targets.options import COREML_SYSTEMS, read_choice, read_system
from mvsdk_export.targets.spec import (
    AddOption,
    Kind,
    Lowering,
    TargetSpec,
    VariantPlan,
    plan_by_kind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuTorchOptions:
    """How ExecuTorch programs are made."""

    delegate: Delegate = "xnnpack"
    """What takes their operators."""
    deployment_target: str = DEFAULT_SYSTEM
    """Minimum OS, for the delegate coreml."""
    external_weights: bool = False
    """Keep the weights in a .ptd file beside the program."""
    etrecord: bool = False
    """Keep what ExecuTorch's developer tools want to know beside the program."""


class ExecuTorchTarget(TargetSpec[ExecuTorchOptions]):
    """ExecuTorch programs."""

    name = "executorch"
    target = "executorch"
    format = "executorch"
    preload = LowerExecuTorch.PRELOAD
    kinds: ClassVar[Mapping[str, Kind]] = {
        "xnnpack": Kind(
            precisions=("fp32", "w8a8"),
            default=("w8a8",),
            extra="executorch",
            modules=("executorch", "torchao"),
            tools=("executorch", "torchao"),
        ),
        "coreml": Kind(
            precisions=("fp16",),
            default=("fp16",),
            extra="executorch",
            modules=("executorch", "coremltools"),
            tools=("executorch", "coremltools"),
        ),
    }
    help = """\
  --delegate D           xnnpack or coreml (default: xnnpack)
  --external-weights     keep weights of .pte programs in .ptd files
  --etrecord             keep records for ExecuTorch's developer tools
"""
    option_names = ("delegate", "deployment_target", "external_weights", "etrecord")
    option_conditions: ClassVar[Mapping[str, str]] = {"deployment_target": "--delegate coreml"}

    def add_options(self, add: AddOption) -> None:
        """Add its options; `--deployment-target` is that of the target iphone."""
        add("--delegate", help=argparse.SUPPRESS)
        for name in ("--external-weights", "--etrecord"):
            add(name, action="store_true", help=argparse.SUPPRESS)

    def takes(self, name: str, options: argparse.Namespace) -> bool:
        """Return whether an option does something: XNNPACK asks for no system."""
        is_coreml = options.delegate == "coreml"
        return name in self.option_names and (name != "deployment_target" or is_coreml)

    def read_options(self, options: argparse.Namespace) -> ExecuTorchOptions:
        """Return what the options say."""
        delegate = _read_delegate(options.delegate)
        if options.external_weights and delegate != "xnnpack":
            raise InputError(
                f"--external-weights goes with --delegate xnnpack, not {delegate}, which keeps "
                "its weights to itself; leave it out"
            )
        system = read_system(options.deployment_target)
        return ExecuTorchOptions(
            delegate=delegate,
            deployment_target=system if system in COREML_SYSTEMS else DEFAULT_SYSTEM,
            external_weights=options.external_weights,
            etrecord=options.etrecord,
        )

    def default_options(self) -> ExecuTorchOptions:
        """Return those for XNNPACK, in one file."""
        return ExecuTorchOptions()

    def kind(self, options: ExecuTorchOptions) -> Kind:
        """Return what a delegate takes."""
        return self.kinds[options.delegate]

    def plan_variants(
        self,
        precisions: Sequence[Precision],
        *,
        chips: Sequence[Chipset],
        options: ExecuTorchOptions,
    ) -> tuple[VariantPlan, ...]:
        """Return a variant per precision."""
        del chips
        is_coreml = options.delegate == "coreml"
        return plan_by_kind(
            self,
            precisions,
            options.delegate,
            delegate=options.delegate,
            deployment_target=options.deployment_target if is_coreml else None,
        )

    def check_component(self, component: ComponentRecipe, plan: VariantPlan) -> None:
        """Check that tensors keep their names where Core ML takes them."""
        if plan.delegate == "coreml":
            check_component_names(component)

    def plan_jobs(
        self, lowering: Lowering, plans: Sequence[VariantPlan], options: ExecuTorchOptions
    ) -> dict[str, Job[Artefact]]:
        """Plan a program per precision."""
        return {
            plan.id: LowerExecuTorch(
                name=f"lower {lowering.component.name} {plan.precision} to ExecuTorch "
                f"{plan.delegate}",
                memory_bytes=lowering.memory(6.0, 3.0),
                model=lowering.model,
                subject=lowering.subject,
                delegate=plan.delegate or options.delegate,
                precision=plan.precision,
                deployment_target=plan.deployment_target,
                target_db=lowering.target_db(plan),
                external_weights=options.external_weights,
                etrecord=options.etrecord,
                recorded=lowering.calibration(plan),
            )
            for plan in plans
        }

    def compute_unit(self, plan: VariantPlan, options: ExecuTorchOptions) -> ComputeUnit:
        """Return the NPU for Core ML: its package is compiled for the Neural Engine (coreml.py)."""
        del options
        return "NPU" if plan.delegate == "coreml" else "CPU"


def _read_delegate(text: str | None) -> Delegate:
    if text == "qnn":
        raise InputError(
            "--delegate qnn is not offered: ExecuTorch's is made for QNN 2.37, and the libraries "
            "that pip installs, 2.47 and later, refuse its configuration (docs/executorch.md); "
            "use --target snapdragon for Qualcomm's NPUs"
        )
    known = ExecuTorchTarget.kinds
    return cast("Delegate", read_choice("--delegate", text or "xnnpack", known))


EXECUTORCH = ExecuTorchTarget()
