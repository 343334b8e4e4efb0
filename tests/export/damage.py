"""Ways to damage a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
SCHEDULE = "scheduler/scheduler_config.json"
VOCABULARY = "tokenizer/vocab.json"
BIAS = "patch_in.bias"
"""A tensor of the transformer, of 32 values."""

Damage = Callable[[Path], object]


def edit_json(relative: str, **changes: object) -> Damage:
    """Set keys of a JSON file; `...` removes one."""

    def damage(folder: Path) -> None:
        document = json.loads((folder / relative).read_text())
        document.update(changes)
        kept = {key: value for key, value in document.items() if value is not ...}
        (folder / relative).write_text(json.dumps(kept))

    return damage


def write_bytes(relative: str, content: bytes) -> Damage:
    return lambda folder: (folder / relative).write_bytes(content)


def cut(relative: str, keep: int) -> Damage:
    return lambda f: (f / relative).write_bytes((f / relative).read_bytes()[:keep])


def append(relative: str, more: bytes) -> Damage:
    return lambda f: (f / relative).write_bytes((f / relative).read_bytes() + more)


def edit_header(change: Callable[[dict[str, Any]], object], file: str = TRANSFORMER) -> Damage:
    """Change the header of a file of weights, and nothing else."""

    def damage(folder: Path) -> None:
        content = (folder / file).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        changed = json.dumps(header).encode()
        size = len(changed).to_bytes(8, "little")
        (folder / file).write_bytes(size + changed + content[8 + length :])

    return damage


def shard(folder: Path, file: str = TRANSFORMER) -> None:
    """Split a file of weights over two files and an index."""
    weights = load_file(folder / file)
    names = sorted(weights)
    parts = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: weights[name] for name in held}, (folder / file).with_name(part))
    index = {"metadata": {}, "weight_map": {n: part for part, held in parts.items() for n in held}}
    (folder / f"{file}.index.json").write_text(json.dumps(index))
    (folder / file).unlink()


def shard_then(damage: Damage, file: str = TRANSFORMER) -> Damage:
    """Shard, then damage."""

    def both(folder: Path) -> None:
        shard(folder, file)
        damage(folder)

    return both


def pickle_instead(folder: Path, file: str = TRANSFORMER) -> None:
    (folder / file).unlink()
    torch.save({}, (folder / file).with_suffix(".bin"))


def link_out(folder: Path, file: str = TRANSFORMER) -> None:
    shutil.move(folder / file, folder.parent / "outside.safetensors")
    (folder / file).symlink_to(folder.parent / "outside.safetensors")


def index_names(shard: str) -> Damage:
    """Let the index of sharded weights name one file."""
    return shard_then(edit_json(f"{TRANSFORMER}.index.json", weight_map={"x": shard}))


def edit_weights(change: Callable[[dict[str, Any]], Any], file: str = TRANSFORMER) -> Damage:
    """Change the tensors of a file; `change` works in place or returns others."""

    def damage(folder: Path) -> None:
        weights = load_file(folder / file)
        changed = change(weights)
        save_file(changed if isinstance(changed, dict) else weights, folder / file)

    return damage


def spoil(name: str, *values: float) -> Damage:
    """Overwrite the first values of a tensor."""

    def change(weights: dict[str, Any]) -> None:
        weights[name].view(-1)[: len(values)] = torch.tensor(values)

    return edit_weights(change)


def rename_block(weights: dict[str, Any]) -> None:
    for name in [name for name in weights if name.startswith("layers.0.to_")]:
        weights["old." + name] = weights.pop(name)
