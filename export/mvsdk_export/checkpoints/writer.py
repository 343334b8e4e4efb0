"""Writing of model folders: float16 safetensors, all or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._parse import describe
from mvsdk._staging import StagingFolder, writing
from mvsdk.errors import OutputError
from mvsdk_export.checkpoints.building import resolve
from mvsdk_export.checkpoints.configs import config_to_document
from mvsdk_export.checkpoints.folder import (
    CLASS_NAME,
    FORMAT_VERSION,
    INDEX_FILE,
    MODEL_CARD,
    QUALITY_FILE,
    SCHEDULER_FILE,
    TOKENIZER_FILE,
    ModelFolder,
    load_configs,
    open_model_folder,
)
from mvsdk_export.checkpoints.scheduler import Scheduler
from mvsdk_export.errors import CheckpointError
from mvsdk_export.recipes import ComponentRecipe, Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_model_folder(
    out: Path,
    recipe: Recipe,
    networks: Mapping[str, nn.Module],
    *,
    scheduler: Scheduler,
    vocabulary_file: Path,
    model_card: str,
    quality: str = "",
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model folder; it appears whole or not at all.

    The same content gives the same bytes. What was written is read back by the strict reader before
    it takes its name.

    Args:
        out: The folder-to-be; missing parents are made.
        recipe: What the networks are.
        networks: Component name -> network, as the recipe names them; each has its configuration
            as `config`. Weights are stored as float16.
        scheduler: How the denoiser was trained.
        vocabulary_file: WordPiece vocabulary, copied.
        model_card: Text of README.md.
        quality: Text of quality.json, the figures that the card was made from; "" for none.
        overwrite: Replace a model folder that is there; anything else is never replaced.

    Raises:
        CheckpointError: If networks do not match the recipe, or a weight is not finite or beyond
            float16.
        OutputError: If `out` exists and may not be replaced, or cannot be written.
    """
    _check_networks(recipe, networks)
    staging = StagingFolder(out, replaces=INDEX_FILE if overwrite else None)
    staging.create()
    try:
        with writing(staging.out):
            _write(staging.path, recipe, networks, scheduler, vocabulary_file, model_card)
            if quality:
                _write_text(staging.path / QUALITY_FILE, quality)
            open_model_folder(staging.path, recipe)
            load_configs(staging.path, recipe)
            staging.publish()
    finally:
        staging.discard()
    return open_model_folder(out, recipe)


def _check_networks(recipe: Recipe, networks: Mapping[str, nn.Module]) -> None:
    wanted = sorted(part.name for part in recipe.components)
    if sorted(networks) != wanted:
        raise CheckpointError(
            f"got networks for {', '.join(sorted(networks)) or 'nothing'}, recipe {recipe.name} "
            f"wants {', '.join(wanted)}"
        )
    for part in recipe.components:
        network = networks[part.name]
        if type(network) is not resolve(part.network):
            raise CheckpointError(
                f"{part.name} is a {type(network).__name__}, recipe {recipe.name} wants a "
                f"{part.network.partition(':')[2]}"
            )


def _write(
    root: Path,
    recipe: Recipe,
    networks: Mapping[str, nn.Module],
    scheduler: Scheduler,
    vocabulary_file: Path,
    model_card: str,
) -> None:
    index = {"_class_name": CLASS_NAME, "recipe": recipe.name, "format_version": FORMAT_VERSION}
    _write_json(root / INDEX_FILE, index)
    _write_json(root / SCHEDULER_FILE, scheduler.to_document())
    (root / TOKENIZER_FILE).parent.mkdir()
    shutil.copyfile(vocabulary_file, root / TOKENIZER_FILE)
    _write_text(root / MODEL_CARD, model_card)
    for part in recipe.components:
        _write_component(root, part, networks[part.name])


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_component(root: Path, part: ComponentRecipe, network: Any) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        name: _to_half(part.name, name, value) for name, value in network.state_dict().items()
    }
    _write_json(root / part.folder / "config.json", config_to_document(network.config))
    try:
        save_file(tensors, root / part.folder / part.weights, metadata={"format": "pt"})
    except SafetensorError as exc:  # not an OSError, whatever the system said
        raise OutputError(
            f"cannot write the weights of {part.name}: {' '.join(str(exc).split())}; free some "
            "space or choose another disk"
        ) from exc


def _to_half(component: str, name: str, value: Tensor) -> Tensor:
    """Return a tensor in float16 after checking that it fits."""
    import torch

    from mvsdk_export.checkpoints.weights import check_finite

    value = value.detach().cpu()
    check_finite(name, value, f"cannot save {component}")
    half = value.to(torch.float16).contiguous()
    if not bool(torch.isfinite(half).all()):
        largest = float(value.abs().max())
        raise CheckpointError(
            f"cannot save {component}: tensor {describe(name)} reaches {largest:g}, float16 holds "
            "at most 65504; train with weight decay or scale the layer"
        )
    return half


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8", newline="\n")
