"""What an export is asked for, and the variants and sets of them that this means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mvsdk.devices import Chipset
from mvsdk.manifest import ComputeUnit, Delegate, Format, Precision, Target
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.planning.preflight import CHUNK_BYTES, PART_BYTES
from mvsdk_export.targets.coreml.tools import DEFAULT_DEPLOYMENT_TARGET

if TYPE_CHECKING:
    from mvsdk_export.families.pipeline import Clip


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """What graphs are made in: a variant of every component that is made so, by the same id."""

    id: str
    target: Target
    precision: Precision
    chipset: Chipset | None = None
    format: Format = "onnx"
    delegate: Delegate | None = None
    """What takes the operators of an ExecuTorch program; None for other formats."""
    deployment_target: str | None = None
    """Least system of an Apple phone that opens it; None for other phones."""


def plan_variants(
    target: Target,
    precisions: Sequence[Precision],
    *,
    chips: Sequence[Chipset] = (),
    format: Format | None = None,
    delegate: Delegate = "xnnpack",
    deployment_target: str = DEFAULT_DEPLOYMENT_TARGET,
) -> tuple[VariantPlan, ...]:
    """Return what graphs are made in for one target, in order.

    Args:
        target: The target.
        precisions: Precisions of each.
        chips: Chips that are compiled for, where a target is compiled for a chip.
        format: "coreml" or "coreai" for the target iphone; None for coreml.
        delegate: For the target executorch.
        deployment_target: For the target iphone, and for the delegate coreml.
    """
    if target == "onnx":
        return tuple(
            VariantPlan(id=f"onnx-{p}", target="onnx", precision=p, format="onnx")
            for p in precisions
        )
    if target == "snapdragon":
        return tuple(
            VariantPlan(
                id=f"snapdragon-{chip.slug}-{p}",
                target="snapdragon",
                precision=p,
                chipset=chip,
                format="qnn_context",
            )
            for p in precisions
            for chip in chips
        )
    if target == "iphone":
        chosen = format or "coreml"
        return tuple(
            VariantPlan(
                id=f"iphone-{chosen}-{p}",
                target="iphone",
                precision=p,
                format=chosen,
                deployment_target=deployment_target,
            )
            for p in precisions
        )
    return tuple(
        VariantPlan(
            id=f"executorch-{delegate}-{p}",
            target="executorch",
            precision=p,
            format="executorch",
            delegate=delegate,
            deployment_target=deployment_target if delegate == "coreml" else None,
        )
        for p in precisions
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOverride:
    """What one component is made in, in place of what the others are."""

    target: Target
    precision: Precision
    format: Format | None = None
    delegate: Delegate = "xnnpack"
    deployment_target: str = DEFAULT_DEPLOYMENT_TARGET


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan:
    """Variants that will run together."""

    id: str
    plans: Mapping[str, VariantPlan]
    """By component."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppleOptions:
    """How packages for Apple's phones are made."""

    compute_unit: ComputeUnit = "NPU"
    """Where they are meant to run."""
    attention: Literal["fused", "split_einsum"] = "fused"
    chunk_bytes: int = CHUNK_BYTES
    """Weights above which a package is a pipeline of chunks."""
    palette_group: int | None = None
    """Output channels that share a palette; None for what fits each weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuTorchOptions:
    """How ExecuTorch programs are made."""

    external_weights: bool = False
    """Keep the weights in a .ptd file beside the program."""
    etrecord: bool = False
    """Keep what ExecuTorch's developer tools want to know beside the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export, every default filled in."""

    folder: ModelFolder
    variants: tuple[VariantPlan, ...]
    """What every component is made in, in order, but for `overrides`."""
    num_frames: int
    height: int
    width: int
    steps: tuple[int, ...]
    out: Path
    decode_frames: int | None = None
    """Frames that the decoder's graph takes at once, a divisor of `num_frames`: each such part is
    decoded as a clip of its own. None for as many as fit (decoding.py)."""
    guidance: tuple[float, float] | Literal["none"] | None = None
    """Classifier-free guidance of the first and the last frame; "none" for one evaluation of the
    network without it; None for what clips of the checkpoint's scheduler are made with."""
    overrides: Mapping[str, VariantOverride] = field(default_factory=dict)
    """Component -> what it is made in instead."""
    pictures: Path | None = None
    """Folder of pictures that calibrate and verify; None for those that the recipe names."""
    part_bytes: int = PART_BYTES
    """Float32 weights above which a component's graph is cut into parts."""
    apple: AppleOptions = field(default_factory=AppleOptions)
    executorch: ExecuTorchOptions = field(default_factory=ExecuTorchOptions)
    overwrite: bool = False
    verify: bool = True

    @property
    def sets(self) -> tuple[SetPlan, ...]:
        """The sets of variants that will run together, in order; no two are of the same."""
        names = [part.name for part in self.folder.recipe.components]
        found: dict[tuple[VariantPlan, ...], SetPlan] = {}
        for plan in self.variants:
            plans = {name: self._plan_of(name, plan) for name in names}
            first, *others = dict.fromkeys(plans.values())
            name = f"{plan.id}-mixed" if others else first.id
            found.setdefault(tuple(plans.values()), SetPlan(id=name, plans=plans))
        return tuple(found.values())

    @property
    def plans(self) -> tuple[VariantPlan, ...]:
        """All that some component is made in, each once."""
        return tuple(dict.fromkeys(plan for item in self.sets for plan in item.plans.values()))

    def plans_of(self, component: str) -> tuple[VariantPlan, ...]:
        """Return what a component is made in, each once, in order."""
        return tuple(dict.fromkeys(item.plans[component] for item in self.sets))

    def _plan_of(self, component: str, plan: VariantPlan) -> VariantPlan:
        override = self.overrides.get(component)
        if override is None:
            return plan
        (other,) = plan_variants(
            override.target,
            [override.precision],
            chips=[] if plan.chipset is None else [plan.chipset],
            format=override.format,
            delegate=override.delegate,
            deployment_target=override.deployment_target,
        )
        return other

    @property
    def chips(self) -> tuple[Chipset, ...]:
        """Chips that graphs are compiled for by Qualcomm's compiler."""
        found = (x.chipset for x in self.plans if x.target == "snapdragon" and x.chipset)
        return tuple(dict.fromkeys(found))

    @property
    def chip_precisions(self) -> tuple[Precision, ...]:
        """Precisions of those graphs."""
        found: list[Precision] = [
            plan.precision for plan in self.plans if plan.target == "snapdragon"
        ]
        return tuple(dict.fromkeys(found))

    @property
    def size(self) -> dict[str, int]:
        """Frames, height and width, as functions of the toolchain take them."""
        return {
            "num_frames": self.num_frames,
            "height": self.height,
            "width": self.width,
            "decode_frames": self.decode_frames or self.num_frames,
        }

    @property
    def clip(self) -> Clip:
        """Which clip of the model is made."""
        from mvsdk_export.families.pipeline import Clip

        return Clip(
            **self.size,
            steps=self.steps,
            default_steps=self.default_steps,
            guidance=self.folded_guidance,
        )

    @property
    def folded_guidance(self) -> tuple[float, float] | None:
        """The guidance that the denoiser's graph holds; None for none."""
        if self.guidance is None:
            return self.folder.recipe.default_guidance
        return None if self.guidance == "none" else self.guidance

    @property
    def default_steps(self) -> int:
        """The recipe's default where it is among the steps, else the largest."""
        preferred = self.folder.recipe.default_steps
        return preferred if preferred in self.steps else max(self.steps)


def needs_calls(plan: VariantPlan) -> bool:
    """Return whether recorded calls of the reference decide what a variant becomes."""
    return plan.precision not in ("fp32", "fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource:
    """Which ONNX model a variant is made of."""

    precision: Precision
    htp_float16: bool = False
    """Whether its layers have the forms of the HTP in float16, and not those at w8a16."""

    @property
    def label(self) -> str:
        """What a stage that makes it is called by."""
        return "for fp16" if self.htp_float16 else self.precision


def graph_source(plan: VariantPlan) -> GraphSource:
    """Return which ONNX model a variant is made of: the HTP takes float32 for float16."""
    if plan.target == "snapdragon" and plan.precision == "fp16":
        return GraphSource(precision="fp32", htp_float16=True)
    return GraphSource(precision=plan.precision)
