"""What an export is asked for, and the variants and sets of them that this means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mvsdk.devices import Chipset
from mvsdk.manifest import Precision, Target
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.checkpoints.subject import ClipSize
from mvsdk_export.families.pipeline import Clip
from mvsdk_export.graphs.limits import PART_BYTES
from mvsdk_export.targets import find_spec, specs_of
from mvsdk_export.targets.spec import VariantPlan


def plan_variants(
    target: Target,
    precisions: Sequence[Precision],
    *,
    chips: Sequence[Chipset] = (),
    format: str | None = None,
    options: object | None = None,
) -> tuple[VariantPlan, ...]:
    """Return what graphs are made in for one target, in order.

    Args:
        target: The target.
        precisions: Precisions of each.
        chips: Chips that are compiled for, where a target is compiled for a chip.
        format: Of the target iphone; None for the one that is usual.
        options: Of the target's `TargetSpec`; None for its defaults.
    """
    specs = specs_of(target)
    usual = [x for x in specs if (x.is_default if format is None else x.format == format)]
    spec = usual[0]
    chosen = spec.default_options() if options is None else options
    return spec.plan_variants(precisions, chips=chips, options=chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOverride:
    """What one component is made in, in place of what the others are."""

    spec: str
    """Name of the `TargetSpec`."""
    precision: Precision
    options: Any = None
    """Of the target; None for its defaults."""

    @property
    def label(self) -> str:
        """What `--component` says of it."""
        return f"{find_spec(self.spec).target}/{self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan:
    """Variants that will run together."""

    id: str
    plans: Mapping[str, VariantPlan]
    """By component."""


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
    options: Mapping[str, Any] = field(default_factory=dict)
    """Name of a `TargetSpec` -> its options, where they are not its defaults."""
    overwrite: bool = False
    verify: bool = True
    runs_conditioning_once: bool = True
    """Whether what a denoiser makes of the conditioning alone becomes a graph of its own where that
    pays (planning/conditioning.py)."""

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

    def options_of(self, spec: str) -> Any:
        """Return the options of a target."""
        chosen = self.options.get(spec)
        return find_spec(spec).default_options() if chosen is None else chosen

    def options_for(self, component: str, spec: str) -> Any:
        """Return the options of a target where it makes a component."""
        override = self.overrides.get(component)
        if override is not None and override.spec == spec and override.options is not None:
            return override.options
        return self.options_of(spec)

    def _plan_of(self, component: str, plan: VariantPlan) -> VariantPlan:
        override = self.overrides.get(component)
        if override is None:
            return plan
        spec = find_spec(override.spec)
        (other,) = spec.plan_variants(
            [override.precision],
            chips=[] if plan.chipset is None else [plan.chipset],
            options=self.options_for(component, spec.name),
        )
        return other

    @property
    def chips(self) -> tuple[Chipset, ...]:
        """Chips that graphs are compiled for by Qualcomm's compiler."""
        return tuple(dict.fromkeys(x.chipset for x in self.plans if x.chipset))

    @property
    def chip_precisions(self) -> tuple[Precision, ...]:
        """Precisions of those graphs."""
        found: list[Precision] = [plan.precision for plan in self.plans if plan.chipset]
        return tuple(dict.fromkeys(found))

    @property
    def clip_size(self) -> ClipSize:
        """Frames, height and width of clips."""
        return ClipSize(
            num_frames=self.num_frames,
            height=self.height,
            width=self.width,
            decode_frames=self.decode_frames or self.num_frames,
        )

    @property
    def size(self) -> dict[str, int]:
        """The same, as functions of the toolchain take it."""
        return asdict(self.clip_size)

    @property
    def clip(self) -> Clip:
        """Which clip of the model is made."""
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
