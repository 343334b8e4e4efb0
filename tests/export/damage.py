"""Ways to damage a model folder, and the one line that refuses it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mvsdk_export.errors import CheckpointError

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
SCHEDULE = "scheduler/scheduler_config.json"
VOCABULARY = "tokenizer/vocab.json"
BIAS = "patch_in.bias"
"""A tensor of the transformer, of 32 values."""

Damage = Callable[[Path], object]
Refusals = dict[str, tuple[Damage, str]]
"""Name of a case -> the damage, and what the line that refuses it matches."""


@contextlib.contextmanager
def refused(message: str) -> Iterator[pytest.ExceptionInfo[CheckpointError]]:
    """Expect the block to raise a `CheckpointError` of one short line that matches."""
    with pytest.raises(CheckpointError, match=message) as caught:
        yield caught
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


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


def repeat_tensor(folder: Path) -> str:
    """Copy a tensor of one shard into the other; return its name."""
    first, second = (folder / f"part-{index}.safetensors" for index in (1, 2))
    tensors = load_file(second)
    name = min(tensors)
    save_file({**load_file(first), name: tensors[name]}, first)
    return name


def pickle_instead(folder: Path, file: str = TRANSFORMER) -> None:
    (folder / file).unlink()
    torch.save({}, (folder / file).with_suffix(".bin"))


def link_out(folder: Path, file: str = TRANSFORMER) -> None:
    shutil.move(folder / file, folder.parent / "outside.safetensors")
    (folder / file).symlink_to(folder.parent / "outside.safetensors")


def index_names(shard: str, file: str = TRANSFORMER) -> Damage:
    """Let the index of sharded weights name one file."""
    return shard_then(edit_json(f"{file}.index.json", weight_map={"x": shard}), file)


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


def move_to_front(tensor: dict[str, Any]) -> None:
    """Let the header say that a tensor lies where the first one does."""
    begin, end = tensor["data_offsets"]
    tensor["data_offsets"] = [0, end - begin]


def weights_not_opened(file: str, bias: str) -> Refusals:
    """Return damage of a file of weights that opening its model refuses.

    Args:
        file: The file, which diffusers names so.
        bias: A tensor of it that is not the first.
    """
    lost = f"{Path(file).parent}/part-2.safetensors"
    return {
        "pickle instead": (
            lambda f: pickle_instead(f, file),
            r"diffusion_pytorch_model\.bin' is a pickle, .*weights_only=True",
        ),
        "cut in header": (cut(file, 100), "is truncated: 100 bytes, its header alone needs"),
        "cut in data": (cut(file, -1), "is truncated: .* bytes of data, expected"),
        "longer": (append(file, b"\0"), "has bytes after its last tensor"),
        "overlap": (
            edit_header(lambda h: move_to_front(h[bias]), file),
            "has wrong offsets: tensor",
        ),
        "linked out": (
            lambda f: link_out(f, file),
            "is a link out of the folder; copy the file into it",
        ),
        "missing shard": (
            shard_then(lambda f: (f / lost).unlink(), file),
            f"lacks {lost}; download or make it again",
        ),
        "shard elsewhere": (
            index_names("../x.safetensors", file),
            "names the shard '../x.safetensors', expected a plain name that ends with .safetensors",
        ),
    }


def weights_not_loaded(file: str, bias: str) -> Refusals:
    """Return damage of a file of weights that loading its component refuses.

    Args:
        file: The file.
        bias: A tensor of it, of 32 values.
    """
    return {
        "key missing": (
            edit_weights(lambda w: w.pop(bias), file),
            f"lacks 1 of [0-9]+ tensors: '{bias}'; config.json and weights must come",
        ),
        "shape": (
            edit_weights(lambda w: w.update({bias: torch.zeros(16)}), file),
            rf"tensor '{bias}' has shape \[16\], the network of config.json wants \[32\]",
        ),
        "integers": (
            edit_weights(lambda w: w.update({bias: torch.zeros(32, dtype=torch.int8)}), file),
            f"tensor '{bias}' has dtype I8, expected F16, BF16, F32; save the weights again",
        ),
        "long integers": (
            edit_weights(lambda w: w.update({bias: torch.zeros(32, dtype=torch.int64)}), file),
            f"tensor '{bias}' has dtype I64, expected F16, BF16, F32; save the weights again",
        ),
    }
