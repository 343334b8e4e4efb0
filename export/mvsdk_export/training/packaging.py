"""What the model folders of all trainings have in common: their weights, their figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from mvsdk._staging import StagingFolder
from mvsdk.errors import MvsdkError
from mvsdk_export.checkpoints import INDEX_FILE, QUALITY_FILE, ModelFolder, open_model
from mvsdk_export.families import find_recipe
from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.plan import TrainingPlan


class Quality(Protocol):
    """What was measured of a model."""

    def to_json(self) -> dict[str, Any]:
        """Return numbers rounded to what they mean."""
        ...


QualityT = TypeVar("QualityT", bound=Quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged(Generic[QualityT]):
    """A model folder that was written, and what its model card says of quality."""

    folder: ModelFolder
    quality: QualityT


def check_output(out: Path, *, overwrite: bool) -> None:
    """Check that a model folder may be written, before any work is done.

    Raises:
        OutputError: If `out` exists and may not be replaced.
    """
    StagingFolder(out, replaces=INDEX_FILE if overwrite else None)


def check_plan(plan: TrainingPlan[Any]) -> None:
    """Check that every stage before the last is finished as the recipe says.

    Raises:
        TrainingError: If one is not, or was made with other options.
    """
    plan.check_needs("package")
    for stage in plan.needs("package"):
        plan.is_finished(stage)  # refuses what was made with other options


def is_packaged(
    plan: TrainingPlan[Any], out: Path, load: Callable[[], Mapping[str, nn.Module]]
) -> bool:
    """Say whether a folder holds the weights that the work folder would give.

    Args:
        plan: Whose work folder.
        out: The model folder.
        load: Returns the networks as they would be shipped, by the names of components.
    """
    if not (out / INDEX_FILE).is_file():
        return False
    try:
        plan.check_needs("package")
        folder = open_model(out, find_recipe(plan.recipe.name))
        return all(
            _is_same(network.state_dict(), folder.load(name).state_dict())
            for name, network in load().items()
        )
    except MvsdkError:  # another model, a damaged one, or runs that are not finished
        return False


def write_quality(quality: Quality) -> str:
    """Return the text of quality.json."""
    return json.dumps(quality.to_json(), indent=1) + "\n"


def read_quality(
    folder: ModelFolder, from_json: Callable[[Mapping[str, Any]], QualityT]
) -> QualityT:
    """Read the figures of a model folder, with what reads them from a document.

    Raises:
        TrainingError: If it has none.
    """
    path = folder.path / QUALITY_FILE
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; package the model again") from exc


def count_parameters(components: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return the number of weights of every component."""
    return {
        name: sum(value.numel() for value in network.parameters())
        for name, network in components.items()
    }


@torch.no_grad()
def round_to_half_(network: nn.Module) -> nn.Module:
    """Round every weight to what float16 holds."""
    for value in network.state_dict().values():
        value.copy_(value.half().float())
    return network


def _is_same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in ours.items()
    )
