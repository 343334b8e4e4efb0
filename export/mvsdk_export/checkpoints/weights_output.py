"""safetensors files, written one tensor at a time, in float16, and in shards where they are large.

The bytes are those that `safetensors.torch.save_file` writes, which needs all tensors at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from mvsdk._json import describe
from mvsdk_export.checkpoints.headers import TensorEntry, read_header
from mvsdk_export.checkpoints.weight_files import WeightFiles, shard_index
from mvsdk_export.checkpoints.weights import check_finite, read_tensors
from mvsdk_export.errors import CheckpointError

SHARD_BYTES = 2_000_000_000
"""Weights above this size are split into files of at most this size: no file system, archive or
download of a release has trouble with them."""

_HALF_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSource:
    """Where the tensors of a component come from."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    """Returns a tensor by name; only one is held at a time."""


def network_source(network: nn.Module) -> WeightSource:
    """Return the tensors of a network's state dict."""
    state: dict[str, Tensor] = network.state_dict()
    return WeightSource(
        shapes={name: tuple(value.shape) for name, value in state.items()},
        read=lambda name: state[name].detach().cpu(),
    )


def file_source(weights: WeightFiles, *, unused: tuple[str, ...] = ()) -> WeightSource:
    """Return the tensors of safetensors files.

    Args:
        weights: The files.
        unused: How the names of tensors begin that are left out.

    Raises:
        CheckpointError: If a file is damaged.
    """
    found: dict[str, tuple[Path, TensorEntry]] = {
        name: (path, entry)
        for path in weights.files
        for name, entry in read_header(path).items()
        if not name.startswith(unused)
    }

    def read(name: str) -> Tensor:
        path, entry = found[name]
        ((_, tensor),) = read_tensors(path, {name: entry})
        return tensor

    return WeightSource(shapes={name: entry.shape for name, (_, entry) in found.items()}, read=read)


def write_weights(folder: Path, file: str, component: str, source: WeightSource) -> None:
    """Write weights as float16.

    Args:
        folder: Existing folder.
        file: Name of the file; shards and their index are named after it.
        component: Name in errors.
        source: The tensors.

    Raises:
        CheckpointError: If a weight is not finite or beyond float16.
        OSError: If the system refuses.
    """
    shards = _split(source.shapes)
    if len(shards) == 1:
        _write_file(folder / file, shards[0], component, source)
        return
    stem = file.removesuffix(".safetensors")
    names = [f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, component, source)
    index = {
        "metadata": {"total_size": sum(map(_half_bytes, source.shapes.values()))},
        "weight_map": {
            tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard
        },
    }
    (folder / shard_index(file)).write_text(
        json.dumps(index, indent=2) + "\n", encoding="utf-8", newline="\n"
    )


def _half_bytes(shape: Sequence[int]) -> int:
    return _HALF_BYTES * math.prod(shape)


def _split(shapes: Mapping[str, tuple[int, ...]]) -> list[list[str]]:
    """Deal names, sorted, into shards of at most `SHARD_BYTES`, or of one tensor."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in sorted(shapes):
        more = _half_bytes(shapes[name])
        if shards[-1] and size + more > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    return shards


def _write_file(path: Path, names: Sequence[str], component: str, source: WeightSource) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in names:
        shape = source.shapes[name]
        end = place + _half_bytes(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of eight bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            _write_half(file, component, name, source.read(name))


def _write_half(file: BinaryIO, component: str, name: str, value: Tensor) -> None:
    """Write a tensor after checking that float16 holds it."""
    check_finite(name, value, f"cannot save {component}")
    half = value.to(torch.float16).contiguous()
    if not bool(torch.isfinite(half).all()):
        largest = float(value.abs().max())
        raise CheckpointError(
            f"cannot save {component}: tensor {describe(name)} reaches {largest:g}, float16 holds "
            "at most 65504; train with weight decay or scale the layer"
        )
    file.write(half.view(-1).view(torch.uint8).numpy().data)
