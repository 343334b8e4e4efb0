"""Which files hold the weights of a component: one file, or shards and their index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvsdk._json import describe
from mvsdk._text import quoted, reason_of
from mvsdk_export.checkpoints.documents import read_document
from mvsdk_export.checkpoints.headers import (
    MAX_HEADER_BYTES,
    is_pickle,
    pickle_error,
    read_header,
)
from mvsdk_export.checkpoints.locations import locate
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families import ComponentRecipe

_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")
_PICKLED = ("diffusion_pytorch_model", "pytorch_model", "model")
"""How the names of pickled weights begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The files of one component's weights, headers checked."""

    files: tuple[Path, ...]
    """safetensors files: one, or the shards of one."""
    index: Path | None = None
    """Index of the shards."""

    @property
    def all(self) -> tuple[Path, ...]:
        """The files, and the index if there is one."""
        return self.files if self.index is None else (*self.files, self.index)


def find_weights(root: Path, part: ComponentRecipe, variants: Sequence[str] = ()) -> WeightFiles:
    """Find the weights of a component.

    Plain ones are preferred to variants, as diffusers does where it is asked for none: both are the
    same weights by convention. Of two sets on one footing nobody can say which is meant: such are
    left when weights are saved over others in another number of files.

    Args:
        root: The model folder.
        part: Names the subfolder, "" for the folder itself, and the file.
        variants: Names of variants ("fp16") that do where the plain file is missing.

    Raises:
        CheckpointError: If there are none or two sets, a file is damaged or a pickle, or index and
            shards differ.
    """
    folder, names = root / part.folder, _list(root, part.folder)
    stale: list[str] = []
    for footing in (("",), variants):
        found: list[str] = []
        for variant in footing:
            file, known = _names(part.weights, variant)
            indices = [name for name in known if (folder / name).exists()]
            live = _live_indices(root, part.folder, indices)
            stale += [name for name in indices if name not in live]
            there = [file] if (folder / file).exists() else []
            loose = [] if live else _loose_shards(names, part.weights, variant)[:1]
            found += [*there, *live, *(loose if there else ())]
        if len(found) > 1:
            raise _ambiguous(root, part.folder, found)
        for name in found:
            path = locate(root, _inside(part.folder, name))
            if name.endswith(".json"):
                return _find_shards(root, part.folder, name)
            read_header(path)
            return WeightFiles(files=(path,))
    if stale:
        return _find_shards(root, part.folder, stale[0])  # raises: its shards are missing
    if not (folder / part.weights).is_symlink() and (pickle := _find_pickle(folder, names)):
        raise pickle_error(pickle, part.weights)
    return WeightFiles(files=(locate(root, _inside(part.folder, part.weights)),))  # raises


def shard_index(weights: str) -> str:
    """Return the name of the index of a sharded file."""
    return f"{weights}.index.json"


def _ambiguous(root: Path, folder: str, found: Sequence[str]) -> CheckpointError:
    first, second = (quoted(_inside(folder, name)) for name in found[:2])
    return CheckpointError(
        f"model folder {quoted(root)} holds two sets of weights of one network, {first} and "
        f"{second}, expected one; remove the older one, an index together with its shards"
    )


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _list(root: Path, folder: str) -> list[str]:
    """Return the names of what a folder holds, sorted; hidden ones are of systems and of tools."""
    try:
        return sorted(p.name for p in (root / folder).iterdir() if not p.name.startswith("."))
    except OSError as exc:
        reason = reason_of(exc)
        raise CheckpointError(
            f"{folder or 'the content'} of model folder {quoted(root)} cannot be listed: {reason}; "
            "download or make it again"
        ) from exc


def _names(weights: str, variant: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the file of a variant, "" for the plain one, and those of its index."""
    if not variant:
        return weights, (shard_index(weights),)
    stem = weights.removesuffix(".safetensors")
    return f"{stem}.{variant}.safetensors", (
        # The name of a variant's index has changed with the versions of diffusers.
        f"{weights}.index.{variant}.json",
        f"{weights}.{variant}.index.json",
        f"{stem}.{variant}.safetensors.index.json",
    )


def _live_indices(root: Path, folder: str, indices: Sequence[str]) -> list[str]:
    """Return the indices of which a shard is there, and of those that say the same the first."""
    live: dict[str, object] = {}
    for index in indices:
        weight_map = _read_index(root, folder, index)
        if weight_map in live.values():
            continue
        if any((root / folder / shard).exists() for shard in set(weight_map.values())):
            live[index] = weight_map
    return list(live)


def _loose_shards(names: Sequence[str], weights: str, variant: str) -> list[str]:
    """Return shards that no index names: what is left of weights that were not saved to the end."""
    stem = re.escape(weights.removesuffix(".safetensors"))
    mark = re.escape(f".{variant}") if variant else ""
    count = "-[0-9]{5}-of-[0-9]{5}"
    pattern = re.compile(rf"{stem}({mark}{count}|{count}{mark})\.safetensors")
    return [name for name in names if pattern.fullmatch(name)]


def _find_pickle(folder: Path, names: Sequence[str]) -> Path | None:
    """Return a file of pickled weights, judged by its name; None if there is none.

    Weights go before what training keeps beside them, such as the state of an optimiser.
    """
    found = [folder / name for name in names if is_pickle(folder / name)]
    known = [path for path in found if path.name.startswith(_PICKLED)]
    return next(iter((*known, *found)), None)


def _read_index(root: Path, folder: str, index: str) -> dict[str, str]:
    """Return which shard each tensor is in, as an index says it."""
    path = locate(root, _inside(folder, index))
    document = read_document(path, most_bytes=MAX_HEADER_BYTES)
    document.check_keys(("weight_map",), ("metadata",))
    weight_map = document.values["weight_map"]
    if not isinstance(weight_map, dict) or not weight_map:
        document.fail("weight_map", "an object: tensor name -> file name")
    for name in weight_map.values():
        if type(name) is not str or not _SHARD.fullmatch(name):
            raise CheckpointError(
                f"{quoted(path)} names the shard {describe(name)}, expected a plain name that ends "
                "with .safetensors; download the weights again"
            )
    return weight_map


def _find_shards(root: Path, folder: str, index: str) -> WeightFiles:
    """Find the shards of an index and check that it says what they hold."""
    weight_map = _read_index(root, folder, index)
    files = {n: locate(root, _inside(folder, n)) for n in sorted(set(weight_map.values()))}
    held = {tensor: name for name, file in files.items() for tensor in read_header(file)}
    path = root / folder / index
    if held != weight_map:
        tensor = min(set(held.items()) ^ set(weight_map.items()))[0]
        raise CheckpointError(
            f"{quoted(path)} and its shards differ about tensor {describe(tensor)}; "
            "download the weights again"
        )
    return WeightFiles(files=tuple(files.values()), index=path)
