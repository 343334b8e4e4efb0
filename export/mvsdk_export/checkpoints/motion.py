"""Temporal layers for an image model: a folder of config.json and weights, or the weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvsdk._text import quoted, reason_of
from mvsdk_export.checkpoints.documents import Document, read_document
from mvsdk_export.checkpoints.headers import (
    TensorEntry,
    is_pickle,
    pickle_error,
    read_header,
)
from mvsdk_export.checkpoints.locations import find_folder, locate, plain_name
from mvsdk_export.checkpoints.public import check_public_config
from mvsdk_export.checkpoints.weight_files import WeightFiles, find_weights
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families import Recipe
from mvsdk_export.families.public import VARIANTS
from mvsdk_export.families.recipe import MotionRecipe, resolve

CONFIG_FILE = "config.json"
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionFolder:
    """Opened temporal layers. Make one with `open_motion`."""

    path: Path
    """Absolute path of the folder, or of the file."""
    recipe: MotionRecipe
    """What they are to the model."""
    weights: WeightFiles | None
    """None for a plan, which needs none."""
    _document: Document | None
    """config.json; None for a single file."""

    @property
    def folder(self) -> str:
        """What bundles and messages call this folder."""
        return self.recipe.folder

    def add_to(self, config: Any) -> Any:
        """Return the configuration of a denoiser with these layers.

        Args:
            config: Without any.

        Raises:
            CheckpointError: If they were made for another denoiser.
        """
        document = self._document or Document(self.path, {})
        if document.values:
            check_public_config(document, self.recipe.public)
        fields = resolve(self.recipe.read)(document, self._shapes(), config)
        return replace(config, **fields)

    def files(self) -> dict[str, Path]:
        """Return their files, by the path that bundles give them."""
        if self._document is None:
            return {f"{self.folder}/{plain_name(self.path)}": self.path}
        assert self.weights is not None
        names = [CONFIG_FILE, *(x.relative_to(self.path).as_posix() for x in self.weights.all)]
        return {f"{self.folder}/{name}": locate(self.path, name) for name in names}

    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        files = () if self.weights is None else self.weights.files
        headers = [read_header(file) for file in files]
        return {name: entry.shape for header in headers for name, entry in header.items()}


def open_motion(path: Path, recipe: Recipe, *, needs_weights: bool = True) -> MotionFolder:
    """Open temporal layers for a model; weights are not read.

    Args:
        path: A folder with config.json, or a safetensors file.
        recipe: Of the model.
        needs_weights: False for a plan: a folder may then hold config.json alone.

    Raises:
        CheckpointError: If the recipe knows none, or there are none in this place.
    """
    if recipe.motion is None:
        raise CheckpointError(
            f"{recipe.name} takes no motion modules, got {quoted(path)}; leave --motion out, or "
            "choose an image model with --checkpoint"
        )
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as exc:  # ValueError: a null byte
        raise CheckpointError(
            f"motion modules {quoted(path)} cannot be opened: {reason_of(exc)}"
        ) from exc
    if is_file:
        if is_pickle(path):
            raise pickle_error(path, f"motion modules in {path.stem}{SUFFIX}")
        file = path.absolute()  # a link in the cache of the hub has a name, what it leads to none
        _check_names(file, read_header(file))
        weights, document = WeightFiles(files=(file,)), None
        return MotionFolder(path=file, recipe=recipe.motion, weights=weights, _document=document)
    root = find_folder(path, holds=CONFIG_FILE, what="folder of motion modules")
    document = read_document(locate(root, CONFIG_FILE))
    if not needs_weights:
        return MotionFolder(path=root, recipe=recipe.motion, weights=None, _document=document)
    part = replace(recipe.component(recipe.motion.component), folder="")
    weights = find_weights(root, part, VARIANTS)
    for file in weights.files:
        _check_names(file, read_header(file))
    return MotionFolder(path=root, recipe=recipe.motion, weights=weights, _document=document)


def _check_names(path: Path, header: Mapping[str, TensorEntry]) -> None:
    """Refuse the names of AnimateDiff's own code, with the command that converts them."""
    if any("temporal_transformer" in name for name in header):
        raise CheckpointError(
            f"{quoted(path)} has the names of AnimateDiff's original code, expected those of a "
            'MotionAdapter; convert it: python -c "from diffusers import MotionAdapter; '
            f"MotionAdapter.from_single_file('{path.name}').save_pretrained('motion')\", and "
            "give --motion motion"
        )
    if not any(".motion_modules." in name for name in header):
        first = next(iter(header), "nothing")
        raise CheckpointError(
            f"{quoted(path)} holds no motion modules (it begins with {first}); give the file or "
            "folder of a MotionAdapter, such as animatediff_lightning_4step_diffusers.safetensors"
        )
