"""What an export is asked for, and the sets of variants that this means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mvsdk.devices import Chipset
from mvsdk.manifest import Precision, Target
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.preflight import PART_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export, every default filled in."""

    folder: ModelFolder
    target: Target
    precisions: tuple[Precision, ...]
    chips: tuple[Chipset, ...]
    """Empty for targets that are not compiled for a chip."""
    num_frames: int
    height: int
    width: int
    steps: tuple[int, ...]
    out: Path
    decode_frames: int | None = None
    """Frames that the decoder's graph takes at once, a divisor of `num_frames`: each such part is
    decoded as a clip of its own. None for all."""
    guidance: tuple[float, float] | Literal["none"] | None = None
    """Classifier-free guidance of the first and the last frame; "none" for one evaluation of the
    network without it; None for what clips of the checkpoint's scheduler are made with."""
    pictures: Path | None = None
    """Folder of pictures that calibrate and verify; None for those that the recipe names."""
    part_bytes: int = PART_BYTES
    """Float32 weights above which a component's graph is cut into parts."""
    overwrite: bool = False
    verify: bool = True

    @property
    def variants(self) -> tuple[VariantPlan, ...]:
        """The sets of variants to make, in order."""
        if self.target == "onnx":
            return tuple(
                VariantPlan(id=f"onnx-{p}", target="onnx", precision=p, chipset=None)
                for p in self.precisions
            )
        return tuple(
            VariantPlan(
                id=f"snapdragon-{chip.slug}-{p}", target="snapdragon", precision=p, chipset=chip
            )
            for p in self.precisions
            for chip in self.chips
        )

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


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """One set of variants: the same id in every component."""

    id: str
    target: Target
    precision: Precision
    chipset: Chipset | None


def source_precision(plan: VariantPlan) -> Precision:
    """Return which ONNX model a variant is made of: the HTP takes float32 for float16."""
    return "fp32" if plan.target == "snapdragon" and plan.precision == "fp16" else plan.precision
