"""What `mvsdk train` needs of a model that it trains: one face for all of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

from mvsdk_export.distill.options import Precision, TrainingError, TrainStep
from mvsdk_export.distill.workers import Workers
from mvsdk_export.recipes import find_recipe

TRAINERS: Mapping[str, str] = {
    "sticker": "mvsdk_export.distill.sticker_trainer:StickerTrainer",
    "animator": "mvsdk_export.distill.animator.trainer:AnimatorTrainer",
}
"""Model -> `"module:class"` of what trains it."""


class Trainer(Protocol):
    """A model in training: its recipe, and what its stages do. Stages go by their names."""

    def __init__(self) -> None:
        """Take the recipe as it stands."""
        ...

    def change(
        self,
        *,
        steps: int | None,
        subject_count: int | None,
        bank_clips: int | None,
        seed: int | None,
        precision: Precision | None,
    ) -> None:
        """Take other values into the recipe; None keeps what it says."""
        ...

    def batch_size(self, stage: str) -> int | None:
        """Return the batch size of a stage; None if it trains nothing."""
        ...

    def state_folder(self, stage: str) -> str | None:
        """Return where a stage keeps its state in the work folder; None if it has none."""
        ...

    def check_needs(self, stage: str, work: Path) -> None:
        """Check that all that a stage needs is finished.

        Raises:
            TrainingError: With the command that finishes the first that is not.
        """
        ...

    def run_stage(self, stage: str, work: Path, workers: Workers) -> Generator[TrainStep]:
        """Do what is left to do of a stage other than `package`; close the iterator to stop."""
        ...

    def is_packaged(self, work: Path, out: Path) -> bool:
        """Say whether a model folder holds what the work folder would give."""
        ...

    def package(self, work: Path, out: Path, *, overwrite: bool) -> dict[str, object]:
        """Measure and write the model folder; return its figures."""
        ...

    def read_quality(self, out: Path) -> dict[str, object]:
        """Return the figures of a model folder that is there."""
        ...


def find_trainer(name: str) -> Trainer:
    """Return what trains a model.

    Raises:
        ExportError: No recipe has that name.
        TrainingError: The model is not trained by this toolchain.
    """
    model = find_recipe(name).name
    if model not in TRAINERS:
        raise TrainingError(f"model {name!r} is not trained here; known: {', '.join(TRAINERS)}")
    module, _, attribute = TRAINERS[model].partition(":")
    return getattr(import_module(module), attribute)()
