"""Writing of model folders: float16 safetensors, all or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._staging import StagingFolder, writing
from mvsdk._text import quoted
from mvsdk_export.checkpoints.configs import config_to_document
from mvsdk_export.checkpoints.folder import (
    MODEL_CARD,
    SCHEDULER_FILE,
    TOKENIZER_FILE,
    ModelFolder,
    open_model,
)
from mvsdk_export.checkpoints.layouts import CLASS_NAME, FORMAT_VERSION
from mvsdk_export.checkpoints.locations import INDEX_FILE
from mvsdk_export.checkpoints.scheduler import Scheduler
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families import Recipe
from mvsdk_export.families.recipe import resolve

if TYPE_CHECKING:
    from torch import nn


def save_model_folder(
    out: Path,
    recipe: Recipe,
    networks: Mapping[str, nn.Module],
    *,
    scheduler: Scheduler,
    vocabulary_file: Path | None = None,
    model_card: str,
    rest: ModelFolder | None = None,
    documents: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model folder of ours; it appears whole or not at all.

    The same content gives the same bytes. What was written is read back by the strict reader before
    it takes its name. Weights are written one tensor at a time.

    Args:
        out: The folder-to-be; missing parents are made.
        recipe: What the networks are.
        networks: Component name -> network, as the recipe names them; each has its configuration
            as `config`. Of components that share a subfolder one is enough. Weights are stored as
            float16.
        scheduler: How the denoiser was trained.
        vocabulary_file: WordPiece vocabulary, copied; None for a model that takes no text.
        model_card: Text of README.md.
        rest: A model folder of the same recipe, whose components are copied where `networks` has
            none; None if `networks` has all.
        documents: File name -> text of further files, such as figures that the card was made from.
        overwrite: Replace a model folder that is there; anything else is never replaced.

    Raises:
        CheckpointError: If networks, scheduler or vocabulary do not match the recipe, or a weight
            is not finite or beyond float16.
        OutputError: If `out` exists and may not be replaced, or cannot be written.
    """
    _check_networks(recipe, networks, rest)
    if (vocabulary_file is not None) != recipe.takes_text:
        what = "a vocabulary" if recipe.takes_text else "no vocabulary"
        raise CheckpointError(f"a model folder of {recipe.name} has {what}; pass what it has")
    staging = StagingFolder(out, replaces=INDEX_FILE if overwrite else None)
    staging.create()
    root = staging.path
    index = {"_class_name": CLASS_NAME, "recipe": recipe.name, "format_version": FORMAT_VERSION}
    try:
        with writing(staging.out):
            _write_json(root / INDEX_FILE, index)
            _write_json(root / SCHEDULER_FILE, scheduler.to_document())
            if vocabulary_file is not None:
                (root / TOKENIZER_FILE).parent.mkdir()
                shutil.copyfile(vocabulary_file, root / TOKENIZER_FILE)
            for name, text in {MODEL_CARD: model_card, **(documents or {})}.items():
                _write_text(root / name, text)
            _write_components(root, recipe, networks, rest)
            open_model(root, recipe).check()
            staging.publish()
    finally:
        staging.discard()
    return open_model(out, recipe)


def _check_networks(
    recipe: Recipe, networks: Mapping[str, nn.Module], rest: ModelFolder | None
) -> None:
    parts = {part.name: part for part in recipe.components}
    given = {parts[name].folder: networks[name] for name in networks if name in parts}
    missing = {part.folder for part in recipe.components} - set(given)
    if set(networks) - set(parts) or (missing and rest is None):
        raise CheckpointError(
            f"got networks for {', '.join(sorted(networks)) or 'nothing'}, recipe {recipe.name} "
            f"wants {', '.join(sorted(parts))}"
        )
    if rest is not None and rest.recipe.name != recipe.name:
        raise CheckpointError(
            f"the rest of a model folder of {recipe.name} comes from {quoted(rest.path)}, a "
            f"checkpoint of {rest.recipe.name}; take it from one of {recipe.name}"
        )
    for name, network in networks.items():
        if type(network) is not resolve(parts[name].network):
            raise CheckpointError(
                f"{name} is a {type(network).__name__}, recipe {recipe.name} wants a "
                f"{parts[name].network.partition(':')[2]}"
            )
        if network is not given[parts[name].folder]:
            raise CheckpointError(
                f"{name} shares the folder {parts[name].folder} with another component of recipe "
                f"{recipe.name}, got two networks, expected one"
            )


def _write_components(
    root: Path, recipe: Recipe, networks: Mapping[str, Any], rest: ModelFolder | None
) -> None:
    from mvsdk_export.checkpoints.weights_output import file_source, network_source, write_weights

    copied = {} if rest is None else rest.configs()
    for folder in dict.fromkeys(part.folder for part in recipe.components):
        parts = [part for part in recipe.components if part.folder == folder]
        part = next((part for part in parts if part.name in networks), parts[0])
        if part.name in networks:
            config, source = networks[part.name].config, network_source(networks[part.name])
        else:
            assert rest is not None  # checked above
            config = copied[part.name]
            source = file_source(rest.weights[folder], unused=part.unused_weights)
        _write_json(root / folder / "config.json", config_to_document(config))
        write_weights(root / folder, part.weights, part.name, source)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    _write_text(path, json.dumps(document, indent=2) + "\n")
