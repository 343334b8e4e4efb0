"""The text-to-video model behind the face that `mvsdk train` has for every model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

from mvsdk_export.checkpoints import open_model
from mvsdk_export.distill import packaging, stages
from mvsdk_export.distill.options import TRAINED_STAGES, Precision, Stage, TrainStep
from mvsdk_export.distill.recipe import find_training
from mvsdk_export.distill.work_folder import FOLDERS
from mvsdk_export.distill.workers import Workers
from mvsdk_export.recipes import find_recipe


class StickerTrainer:
    """See `Trainer`."""

    def __init__(self) -> None:
        self.recipe = find_training("sticker")

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
        if stage not in TRAINED_STAGES:
            return None
        return self.recipe.options(cast("Stage", stage)).batch_size

    def state_folder(self, stage: str) -> str | None:
        """See `Trainer`."""
        return FOLDERS.get(cast("Stage", stage))

    def check_needs(self, stage: str, work: Path) -> None:
        """See `Trainer`."""
        stages.check_needs(cast("Stage", stage), work, self.recipe)

    def run_stage(self, stage: str, work: Path, workers: Workers) -> Generator[TrainStep]:
        """See `Trainer`."""
        return stages.run_stage(cast("Stage", stage), self.recipe, work, workers=workers)

    def is_packaged(self, work: Path, out: Path) -> bool:
        """See `Trainer`."""
        return packaging.is_packaged(self.recipe, work, out)

    def package(self, work: Path, out: Path, *, overwrite: bool) -> dict[str, object]:
        """See `Trainer`."""
        done = packaging.package_model(self.recipe, work, out, overwrite=overwrite)
        return done.quality.to_json()

    def read_quality(self, out: Path) -> dict[str, object]:
        """See `Trainer`."""
        folder = open_model(out, find_recipe(self.recipe.name))
        return packaging.read_quality(folder).to_json()
