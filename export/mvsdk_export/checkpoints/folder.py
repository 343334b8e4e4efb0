"""A model folder on disk: structure is checked when it is opened, weights when they are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._parse import describe
from mvsdk.bundle import sha256_file
from mvsdk.manifest import FileRef
from mvsdk_export.checkpoints.building import build_on_meta, resolve, with_frames, wrap
from mvsdk_export.checkpoints.configs import parse_config
from mvsdk_export.checkpoints.documents import read_document
from mvsdk_export.checkpoints.headers import (
    MAX_HEADER_BYTES,
    find_pickle,
    is_pickle,
    pickle_error,
    read_header,
)
from mvsdk_export.checkpoints.scheduler import Scheduler, read_scheduler
from mvsdk_export.checkpoints.vocabulary import check_vocabulary
from mvsdk_export.errors import CheckpointError
from mvsdk_export.recipes import ComponentRecipe, Recipe, find_recipe
from mvsdk_export.shapes import config_sizes

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
CLASS_NAME = "MvsdkPipeline"
INDEX_FILE = "model_index.json"
SCHEDULER_FILE = "scheduler/scheduler_config.json"
TOKENIZER_FILE = "tokenizer/vocab.json"
MODEL_CARD = "README.md"
QUALITY_FILE = "quality.json"

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """An opened model folder. Make one with `open_model_folder`."""

    path: Path
    """Absolute path of the folder, symbolic links resolved."""
    recipe: Recipe
    scheduler: Scheduler
    vocabulary_size: int
    """Tokens of the vocabulary file."""
    _weights: Mapping[str, tuple[Path, ...]]
    """Component -> its safetensors files."""

    @property
    def tokenizer_file(self) -> Path:
        """The WordPiece vocabulary, as a bundle ships it."""
        return _locate(self.path, TOKENIZER_FILE)

    def load_config(self, component: str) -> Any:
        """Return the configuration dataclass of a component's network.

        Raises:
            CheckpointError: If a config.json is wrong, or the components do not fit together.
        """
        configs = load_configs(self.path, self.recipe)
        for name, config in configs.items():
            wanted = getattr(config, "vocabulary_size", self.vocabulary_size)
            if wanted != self.vocabulary_size:
                raise CheckpointError(
                    f"{name} of {str(self.path)!r} wants {wanted} tokens, {TOKENIZER_FILE} has "
                    f"{self.vocabulary_size}; use the vocabulary that it was trained with"
                )
        return configs[component]

    def load(self, component: str, *, num_frames: int | None = None) -> nn.Module:
        """Load one component; nothing else is kept in memory.

        Args:
            component: Name in the recipe.
            num_frames: Frames per clip; None for what the configuration says.

        Returns:
            The network of the recipe, float32, on the CPU, in evaluation mode.

        Raises:
            CheckpointError: If configuration and weights do not fit, or weights are not finite.
        """
        from mvsdk_export.checkpoints.weights import load_weights_

        part = self.recipe.component(component)
        config = with_frames(self.load_config(component), num_frames)
        return load_weights_(build_on_meta(part, config), self._weights[component])

    def check(self, *, num_frames: int | None = None) -> None:
        """Check configurations and names, shapes and types of all weights; none is read.

        Raises:
            CheckpointError: If configuration and weights do not fit.
        """
        from mvsdk_export.checkpoints.weights import check_headers

        for part in self.recipe.components:
            config = with_frames(self.load_config(part.name), num_frames)
            check_headers(build_on_meta(part, config), self._weights[part.name])

    def load_graph(self, component: str, *, num_frames: int | None = None) -> nn.Module:
        """Load one component as phones get it: with the recipe's wrapper, if it has one."""
        return wrap(self.recipe.component(component), self.load(component, num_frames=num_frames))

    def files_with_hashes(self) -> tuple[FileRef, ...]:
        """Return every file that the model consists of, sorted by path."""
        parts = self.recipe.components
        paths = {INDEX_FILE, SCHEDULER_FILE, TOKENIZER_FILE}
        paths |= {f"{part.folder}/config.json" for part in parts}
        paths |= {
            file.relative_to(self.path).as_posix()
            for files in self._weights.values()
            for file in files
        }
        optional = [MODEL_CARD, *(f"{part.folder}/{_index_of(part)}" for part in parts)]
        paths |= {path for path in optional if (self.path / path).is_file()}
        located = {path: _locate(self.path, path) for path in sorted(paths)}
        return tuple(
            FileRef(path=path, bytes=file.stat().st_size, sha256=sha256_file(file))
            for path, file in located.items()
        )


def default_model_folder(recipe_name: str) -> Path:
    """Return the folder of the weights that this package ships for a recipe.

    Raises:
        ExportError: If no recipe has that name.
    """
    return Path(__file__).parents[1] / "models" / find_recipe(recipe_name).name


def open_model_folder(path: Path, recipe: Recipe) -> ModelFolder:
    """Open a model folder and check its structure, without torch and without reading weights.

    Args:
        path: The folder.
        recipe: What it must be a checkpoint of.

    Raises:
        CheckpointError: If a file is missing, damaged, a pickle, outside the folder, or of another
            recipe.
    """
    root = _find_folder(path)
    _check_index(root, recipe)
    for part in recipe.components:
        read_document(_locate(root, f"{part.folder}/config.json"))
    weights = {part.name: _find_weights(root, part) for part in recipe.components}
    return ModelFolder(
        path=root,
        recipe=recipe,
        scheduler=read_scheduler(_locate(root, SCHEDULER_FILE)),
        vocabulary_size=check_vocabulary(_locate(root, TOKENIZER_FILE)),
        _weights=weights,
    )


def load_configs(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Read the configurations of all components; weights need not be there.

    Returns:
        Component name -> configuration dataclass of its network.

    Raises:
        CheckpointError: If one is missing or wrong, or if components do not fit together.
    """
    root = _find_folder(path)
    _check_index(root, recipe)
    configs = {
        part.name: parse_config(
            read_document(_locate(root, f"{part.folder}/config.json")), resolve(part.config)
        )
        for part in recipe.components
    }
    _check_agreement(root, configs)
    return configs


def _check_agreement(root: Path, configs: Mapping[str, Any]) -> None:
    """Check that tensors which cross between components have one size on both sides."""
    for symbol, fields in config_sizes(configs).items():
        (first, size), *others = fields.items()
        for field, value in others:
            if value != size:
                raise CheckpointError(
                    f"components of {str(root)!r} do not fit: {first} is {size}, "
                    f"{field} is {value}, want one size {symbol}; use components of one model"
                )


def _find_folder(path: Path) -> Path:
    name, advice = repr(str(path)), f"give a folder that holds {INDEX_FILE}"
    try:
        if path.is_dir():
            return path.resolve()
        exists = path.exists()
    except (OSError, ValueError) as exc:  # ValueError: a null byte
        reason = (getattr(exc, "strerror", None) or str(exc)).lower()
        raise CheckpointError(f"model folder {name} cannot be opened: {reason}; {advice}") from exc
    if exists and is_pickle(path):
        raise pickle_error(path, "a folder with model.safetensors")
    what = "is a file" if exists else "does not exist"
    raise CheckpointError(f"model folder {name} {what}; {advice}")


def _locate(root: Path, relative: str) -> Path:
    """Return the path of a regular file inside the folder."""
    path = root / relative
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop of links, before Python 3.13
        raise CheckpointError(
            f"model folder {str(root)!r} lacks {relative}; download or make it again"
        ) from exc
    if not target.is_relative_to(root):
        raise CheckpointError(
            f"{relative} of model folder {str(root)!r} is a link out of the folder; "
            "copy the file into it"
        )
    if not target.is_file():
        raise CheckpointError(f"{relative} of model folder {str(root)!r} is not a regular file")
    return path


def _check_index(root: Path, recipe: Recipe) -> None:
    document = read_document(_locate(root, INDEX_FILE))
    document.check_keys(("_class_name", "recipe", "format_version"))
    document.choice("_class_name", (CLASS_NAME,))
    document.choice("recipe", (recipe.name,))
    if document.integer("format_version", 1, 1000) > FORMAT_VERSION:
        raise CheckpointError(
            f"model folder {str(root)!r} has format_version {document.values['format_version']}, "
            f"this mvsdk reads up to {FORMAT_VERSION}; update mvsdk"
        )


def _index_of(part: ComponentRecipe) -> str:
    return f"{part.weights}.index.json"


def _find_weights(root: Path, part: ComponentRecipe) -> tuple[Path, ...]:
    """Return the safetensors files of a component, headers checked."""
    folder = root / part.folder
    if (folder / part.weights).exists() or not (folder / _index_of(part)).exists():
        if not (folder / part.weights).exists() and (pickle := find_pickle(folder)):
            raise pickle_error(pickle, part.weights)
        file = _locate(root, f"{part.folder}/{part.weights}")
        read_header(file)
        return (file,)
    return _find_shards(root, part)


def _find_shards(root: Path, part: ComponentRecipe) -> tuple[Path, ...]:
    """Read the index of sharded weights and check that it says what the shards hold."""
    path = _locate(root, f"{part.folder}/{_index_of(part)}")
    document = read_document(path, most_bytes=MAX_HEADER_BYTES)
    document.check_keys(("weight_map",), ("metadata",))
    weight_map = document.values["weight_map"]
    if not isinstance(weight_map, dict) or not weight_map:
        document.fail("weight_map", "an object: tensor name -> file name")
    for name in weight_map.values():
        if type(name) is not str or not _SHARD.fullmatch(name):
            raise CheckpointError(
                f"{str(path)!r} names the shard {describe(name)}, want a plain name that ends "
                "with .safetensors; download the weights again"
            )
    files = {n: _locate(root, f"{part.folder}/{n}") for n in sorted(set(weight_map.values()))}
    held = {tensor: name for name, file in files.items() for tensor in read_header(file)}
    if held != weight_map:
        tensor = min(set(held.items()) ^ set(weight_map.items()))[0]
        raise CheckpointError(
            f"{str(path)!r} and its shards differ about tensor {describe(tensor)}; "
            "download the weights again"
        )
    return tuple(files.values())
