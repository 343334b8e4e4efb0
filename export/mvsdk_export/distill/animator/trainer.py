"""The image-to-video model behind the face that `mvsdk train` has for every model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

from mvsdk_export.checkpoints import open_model
from mvsdk_export.distill.animator.options import ANIMATOR_TRAINED, AnimatorStage
from mvsdk_export.distill.animator.packaging import (
    is_animator_packaged,
    package_animator,
    read_animator_quality,
)
from mvsdk_export.distill.animator.recipe import ANIMATOR_TRAININGS, NAME
from mvsdk_export.distill.animator.stages import check_needs, run_stage
from mvsdk_export.distill.animator.work_folder import FOLDERS
from mvsdk_export.distill.options import Precision, TrainStep
from mvsdk_export.distill.workers import Workers
from mvsdk_export.recipes import find_recipe


class AnimatorTrainer:
    """See `Trainer`."""

    def __init__(self) -> None:
        self.recipe = ANIMATOR_TRAININGS[NAME]

    def change(
        self,
        *,
        steps: int | None,
        subject_count: int | None,
        bank_clips: int | None,
        seed: int | None,
        precision: Precision | None,
    ) -> None:
        """See `Trainer`."""
        self.recipe = self.recipe.changed(
            steps=steps,
            subject_count=subject_count,
            bank_clips=bank_clips,
            seed=seed,
            precision=precision,
        )

    def batch_size(self, stage: str) -> int | None:
        """See `Trainer`."""
        if stage not in ANIMATOR_TRAINED:
            return None
        return self.recipe.options(cast("AnimatorStage", stage)).batch_size

    def state_folder(self, stage: str) -> str | None:
        """See `Trainer`."""
        return FOLDERS.get(cast("AnimatorStage", stage))

    def check_needs(self, stage: str, work: Path) -> None:
        """See `Trainer`."""
        check_needs(cast("AnimatorStage", stage), work, self.recipe)

    def run_stage(self, stage: str, work: Path, workers: Workers) -> Generator[TrainStep]:
        """See `Trainer`."""
        return run_stage(cast("AnimatorStage", stage), self.recipe, work, workers=workers)

    def is_packaged(self, work: Path, out: Path) -> bool:
        """See `Trainer`."""
        return is_animator_packaged(self.recipe, work, out)

    def package(self, work: Path, out: Path, *, overwrite: bool) -> dict[str, object]:
        """See `Trainer`."""
        return package_animator(self.recipe, work, out, overwrite=overwrite).quality.to_json()

    def read_quality(self, out: Path) -> dict[str, object]:
        """See `Trainer`."""
        return read_animator_quality(open_model(out, find_recipe(self.recipe.name))).to_json()
