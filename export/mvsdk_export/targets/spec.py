"""What a target is: formats, precisions, options of the command line, and the jobs that make it.

A target is a folder here with a `spec.py`, whose `TargetSpec` the table in `__init__.py` names; its
row in `mvsdk.targets.TARGETS` is what runtimes know of it. Specs are light: what is heavy is in the
jobs that they plan.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from mvsdk.devices import Chipset
from mvsdk.manifest import ComputeUnit, Delegate, Format, Precision, Target
from mvsdk_export.checkpoints.subject import Subject
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.jobs.job import Files, Job
from mvsdk_export.quantize.activations import Recorded
from mvsdk_export.targets.artefact import Artefact

if TYPE_CHECKING:
    from mvsdk_export.extras import Extra

MARGIN_DB = 3.0
"""Weights are compressed to stay this much above the floor on the calls that they are measured on:
others are not quite like these."""

_LIBRARY_BYTES = 700 << 20
"""What a process holds before it has any weight."""

AddOption = Callable[..., Any]
"""`argparse.ArgumentParser.add_argument`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the files of a target are, or what takes their operators: one of its products."""

    precisions: tuple[Precision, ...]
    default: tuple[Precision, ...]
    extra: Extra
    """Of the toolchain, which brings what makes it."""
    modules: tuple[str, ...] = ()
    """What the extra brings beside the toolchain."""
    tools: tuple[str, ...] = ()
    """Distributions that make its files, beside PyTorch; manifests have their versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """What graphs are made in: a variant of every component that is made so, by the same id."""

    id: str
    target: Target
    precision: Precision
    spec: str
    """Name of the `TargetSpec` that makes it."""
    chipset: Chipset | None = None
    format: Format = "onnx"
    delegate: Delegate | None = None
    """What takes the operators of an ExecuTorch program; None for other formats."""
    deployment_target: str | None = None
    """Minimum OS of an Apple phone that opens it; None for other phones."""


def needs_calibration(plan: VariantPlan) -> bool:
    """Return whether recorded activations of the reference decide what a variant becomes."""
    return plan.precision not in ("fp32", "fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """What is made of one component, and of what."""

    component: ComponentRecipe
    plans: tuple[VariantPlan, ...]
    """Variants that are wanted, of all targets."""
    parts: int = 1
    """Parts that an ONNX graph for a compiler is cut into; 1: it is not."""
    floors_db: Mapping[str, float] = field(default_factory=dict)
    """Precision -> lowest accepted parity of this component."""
    model: Files
    """The model folder."""
    subject: Subject
    recorded: Job[Recorded] | None = None
    """What calibrates; None where nothing needs it."""
    weight_bytes: int = 0
    """Of its network in float32."""
    activation_bytes: int = 0
    """Most that it holds at once in float32, beside its weights."""

    def target_db(self, plan: VariantPlan) -> float:
        """Return the parity that compressed weights are chosen for."""
        return self.floors_db[plan.precision] + MARGIN_DB

    def calibration(self, plan: VariantPlan) -> Job[Recorded] | None:
        """Return what calibrates a variant; None where nothing does."""
        if not needs_calibration(plan):
            return None
        assert self.recorded is not None
        return self.recorded

    def memory(self, copies: float, activations: float = 1.0) -> int:
        """Estimate what a job holds at once.

        Args:
            copies: Of the float32 weights.
            activations: Likewise.
        """
        return int(
            _LIBRARY_BYTES + copies * self.weight_bytes + activations * self.activation_bytes
        )


O = TypeVar("O")  # noqa: E741 - options of a target


class TargetSpec(ABC, Generic[O]):
    """One target, or one format of a target that has several."""

    name: ClassVar[str]
    """Of the folder."""
    target: ClassVar[Target]
    """What `--target` calls it."""
    format: ClassVar[Format]
    is_phone: ClassVar[bool] = True
    """Whether `--target all` means it."""
    is_default: ClassVar[bool] = True
    """Whether `--target` means this format of it where no other is chosen."""
    kinds: ClassVar[Mapping[str, Kind]]
    """What it can make, by the last words of ids: "coreml", or "xnnpack"."""
    help: ClassVar[str] = ""
    """Its lines in the help of all options of targets."""
    option_names: ClassVar[tuple[str, ...]] = ()
    """Options that it takes, as `argparse` stores them; others may take some of them too."""
    option_conditions: ClassVar[Mapping[str, str]] = {}
    """Option -> with what else it is taken, such as "--delegate coreml"."""
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that its first jobs import: they are imported while an export is planned."""
    takes_chips: ClassVar[bool] = False
    """Whether it is compiled for a chip, so that `--chip` chooses."""

    def add_options(self, add: AddOption) -> None:
        """Add its options to those of `mvsdk export`, but for those that another one adds."""
        del add

    def is_chosen(self, options: argparse.Namespace) -> bool:
        """Return whether it is meant where `--target` names its target.

        Raises:
            InputError: If what chooses between its formats is not understood.
        """
        del options
        return True

    def takes(self, name: str, options: argparse.Namespace) -> bool:
        """Return whether an option does something, as the others are."""
        del options
        return name in self.option_names

    @abstractmethod
    def read_options(self, options: argparse.Namespace) -> O:
        """Return what its options say, every default filled in.

        Raises:
            InputError: If a value is not allowed, or does not go with another.
        """

    @abstractmethod
    def default_options(self) -> O:
        """Return the options where nobody chooses."""

    def check_precisions(self, precisions: Sequence[Precision], options: O) -> None:
        """Check that options go with precisions.

        Raises:
            InputError: If an option does nothing for all of them.
        """
        del precisions, options

    def kind(self, options: O) -> Kind:
        """Return what is made under some options."""
        del options
        return next(iter(self.kinds.values()))

    @abstractmethod
    def plan_variants(
        self, precisions: Sequence[Precision], *, chips: Sequence[Chipset], options: O
    ) -> tuple[VariantPlan, ...]:
        """Return what graphs are made in, in order.

        Args:
            precisions: Of `kind`.
            chips: To compile for, of targets that are compiled for a chip.
            options: Of the target.
        """

    def check_component(self, component: ComponentRecipe, plan: VariantPlan) -> None:
        """Check that a component can be made as a variant of this target, by its names.

        Raises:
            ExportError: If not.
        """
        del component, plan

    @abstractmethod
    def plan_jobs(
        self, lowering: Lowering, plans: Sequence[VariantPlan], options: O
    ) -> dict[str, Job[Artefact]]:
        """Plan the jobs that make variants of a component.

        Args:
            lowering: The component.
            plans: Which of its variants: those of this target.
            options: Of the target.

        Returns:
            Variant id -> the job that makes what is shipped.
        """

    def compute_unit(self, plan: VariantPlan, options: O) -> ComputeUnit:
        """Return where a variant is meant to run."""
        del plan, options
        return "CPU"

    def is_shipped(self, path: Path) -> bool:
        """Tell a file of a variant from what a compiler leaves beside it."""
        del path
        return True


def plan_by_kind(
    spec: TargetSpec[Any], precisions: Sequence[Precision], kind: str, **fields: Any
) -> tuple[VariantPlan, ...]:
    """Return a variant per precision, called by target, kind and precision.

    Args:
        spec: The target.
        precisions: Precisions.
        kind: "" where the name of the target says it.
        **fields: Of every `VariantPlan`.
    """
    head = "-".join(filter(None, (spec.target, kind)))
    return tuple(
        VariantPlan(
            id=f"{head}-{precision}",
            target=spec.target,
            precision=precision,
            spec=spec.name,
            format=spec.format,
            **fields,
        )
        for precision in precisions
    )
