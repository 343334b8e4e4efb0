"""The models that `mvsdk train` makes: light data, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mvsdk_export.families import find_recipe
from mvsdk_export.training.animator.options import ANIMATOR_STAGES
from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.sticker.options import STAGES

if TYPE_CHECKING:
    from mvsdk_export.checkpoints import ModelFolder
    from mvsdk_export.training.packaging import Packaged, Quality
    from mvsdk_export.training.plan import TrainingPlan
    from mvsdk_export.training.recipe import TrainingRecipe

MODEL_STAGES: Mapping[str, tuple[str, ...]] = {"sticker": STAGES, "animator": ANIMATOR_STAGES}
"""Model -> its stages, in the order in which they can be run."""

_ROOM = "mvsdk_export.training"

_NAMES: Mapping[str, tuple[str, str]] = {
    "sticker": ("StickerTrainingPlan", "STICKER_TRAINING"),
    "animator": ("AnimatorTrainingPlan", "ANIMATOR_TRAINING"),
}
"""Model -> names of its plan and of its recipe."""


class Packaging(Protocol):
    """The module `packaging` of a model: what becomes of a plan whose stages are finished."""

    def package(self, plan: Any, out: Path, *, overwrite: bool) -> Packaged[Any]:
        """Measure and write the model folder."""
        ...

    def is_packaged(self, plan: Any, out: Path) -> bool:
        """Say whether a model folder holds what the work folder would give."""
        ...

    def read_quality(self, folder: ModelFolder) -> Quality:
        """Return the figures of a model folder that is there."""
        ...


def find_stages(name: str) -> tuple[str, ...]:
    """Return the stages of a model.

    Raises:
        ExportError: No recipe has that name.
        TrainingError: The model is not trained by this toolchain.
    """
    model = find_recipe(name).name
    if model not in MODEL_STAGES:
        known = ", ".join(MODEL_STAGES)
        raise TrainingError(f"model {name[:64]!r} is not trained here; known: {known}")
    return MODEL_STAGES[model]


def find_training(name: str) -> TrainingRecipe:
    """Return how a model is trained, one of `MODEL_STAGES`."""
    return getattr(import_module(f"{_ROOM}.{name}.recipe"), _NAMES[name][1])


def find_plan(name: str) -> type[TrainingPlan[Any]]:
    """Return the stages of such a model, to be begun with a recipe and a work folder."""
    return getattr(import_module(f"{_ROOM}.{name}.plan"), _NAMES[name][0])


def find_packaging(name: str) -> Packaging:
    """Return what makes the model folder of such a model."""
    module: Any = import_module(f"{_ROOM}.{name}.packaging")
    return module
