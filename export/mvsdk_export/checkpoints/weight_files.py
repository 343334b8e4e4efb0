"""Which files hold the weights of a component: one file, or shards and their index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvsdk._parse import describe
from mvsdk_export.checkpoints.documents import read_document
from mvsdk_export.checkpoints.headers import (
    MAX_HEADER_BYTES,
    find_pickle,
    pickle_error,
    read_header,
)
from mvsdk_export.checkpoints.locations import locate
from mvsdk_export.errors import CheckpointError
from mvsdk_export.recipes import ComponentRecipe

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The files of one component's weights, headers checked."""

    files: tuple[Path, ...]
    """safetensors files: one, or the shards of one."""
    index: Path | None = None
    """Index of the shards."""


def find_weights(root: Path, part: ComponentRecipe, variants: Sequence[str] = ()) -> WeightFiles:
    """Find the weights of a component.

    Args:
        root: The model folder.
        part: Names the subfolder, "" for the folder itself, and the file.
        variants: Names of variants ("fp16") that do where the plain file is missing.

    Raises:
        CheckpointError: If there are none, a file is damaged or a pickle, or index and shards
            differ.
    """
    folder = root / part.folder
    for file, indices in _names(part.weights, variants):
        if (folder / file).exists():
            path = locate(root, _inside(part.folder, file))
            read_header(path)
            return WeightFiles(files=(path,))
        for index in indices:
            if (folder / index).exists():
                return _find_shards(root, part.folder, index)
    if not (folder / part.weights).is_symlink() and (pickle := find_pickle(folder)):
        raise pickle_error(pickle, part.weights)
    return WeightFiles(files=(locate(root, _inside(part.folder, part.weights)),))  # raises


def shard_index(weights: str) -> str:
    """Return the name of the index of a sharded file."""
    return f"{weights}.index.json"


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _names(weights: str, variants: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return names of the file and of its index, in the order of preference."""
    stem = weights.removesuffix(".safetensors")
    return [
        (weights, (shard_index(weights),)),
        *(
            # The name of a variant's index has changed with the versions of diffusers.
            (
                f"{stem}.{variant}.safetensors",
                (
                    f"{weights}.index.{variant}.json",
                    f"{weights}.{variant}.index.json",
                    f"{stem}.{variant}.safetensors.index.json",
                ),
            )
            for variant in variants
        ),
    ]


def _find_shards(root: Path, folder: str, index: str) -> WeightFiles:
    """Read the index of sharded weights and check that it says what the shards hold."""
    path = locate(root, _inside(folder, index))
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
    files = {n: locate(root, _inside(folder, n)) for n in sorted(set(weight_map.values()))}
    held = {tensor: name for name, file in files.items() for tensor in read_header(file)}
    if held != weight_map:
        tensor = min(set(held.items()) ^ set(weight_map.items()))[0]
        raise CheckpointError(
            f"{str(path)!r} and its shards differ about tensor {describe(tensor)}; "
            "download the weights again"
        )
    return WeightFiles(files=tuple(files.values()), index=path)
