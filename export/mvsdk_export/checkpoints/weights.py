"""Weights of one component: compared with its network first, then read and checked.

Tensors are read one by one, so that no more memory is taken than they need in float32.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mvsdk._json import describe, quote
from mvsdk._text import quoted, reason_of
from mvsdk_export.checkpoints.headers import DTYPE_BYTES, TensorEntry, read_header
from mvsdk_export.checkpoints.lora import Change
from mvsdk_export.errors import CheckpointError

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}

WRAPPERS = {"_orig_mod": "torch.compile", "module": "DataParallel"}
"""What modules around a network put into the names of its weights -> what makes such a module."""

SHOWN = 3
"""Names that a message lists before it only counts."""


Rename = Callable[[str], str | None]
"""Name in a file -> name in the network; None for a tensor that is not read."""


def load_weights_(
    network: nn.Module,
    files: Sequence[Path],
    *,
    unused: tuple[str, ...] = (),
    rename: Rename | None = None,
    changes: Mapping[str, Change] | None = None,
) -> nn.Module:
    """Fill a network that was built on the meta device.

    Args:
        network: Its state dict says which tensors, of which shape, must be there; no others may.
        files: safetensors files, one or the shards of one.
        unused: How the names of tensors begin that may be there and are not read.
        rename: What the network calls a tensor of a file; None where both are the same.
        changes: Name of a weight -> what LoRAs add to it.

    Returns:
        The network, float32 on the CPU.

    Raises:
        CheckpointError: If tensors are missing, unexpected, of a wrong shape or type, or not
            finite.
    """
    headers = check_headers(network, files, unused=unused, rename=rename)
    tensors: dict[str, Tensor] = {}
    for path, entries in headers.items():
        for name, tensor in read_tensors(path, entries):
            change = (changes or {}).get(name)
            tensors[name] = tensor if change is None else change.add_to(tensor)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network


def check_headers(
    network: nn.Module,
    files: Sequence[Path],
    *,
    unused: tuple[str, ...] = (),
    rename: Rename | None = None,
) -> Mapping[Path, Mapping[str, TensorEntry]]:
    """Compare what files say they hold with what a network needs; no weight is read.

    Args:
        network: As `load_weights_` takes it.
        files: Likewise.
        unused: Likewise.
        rename: Likewise.

    Returns:
        File -> the network's name of a tensor -> entry, without those that are not used.

    Raises:
        CheckpointError: If tensors are missing, unexpected, or of a wrong shape or type.
    """
    headers = {path: _named_entries(path, unused, rename) for path in files}
    _check_entries(headers, network.state_dict())
    return headers


def _named_entries(
    path: Path, unused: tuple[str, ...], rename: Rename | None
) -> dict[str, TensorEntry]:
    """Return the tensors of a file that are read, by the network's names."""
    named: dict[str, TensorEntry] = {}
    for name, entry in read_header(path).items():
        ours = name if rename is None else rename(name)
        if ours is None or name.startswith(unused):
            continue
        if ours in named:
            raise CheckpointError(
                f"{quoted(path)} holds tensor {describe(ours)} under two names, expected one; "
                "download or make it again"
            )
        named[ours] = entry
    return named


def read_tensors(path: Path, entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, Tensor]]:
    """Read tensors of a safetensors file, one at a time.

    Args:
        path: The file.
        entries: The wanted tensors, as the header describes them.

    Yields:
        Name and tensor, float32, in the order of the file.

    Raises:
        CheckpointError: If the file cannot be read, has become shorter, or a value is not finite.
    """
    where = quoted(path)
    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
                file.seek(start + entry.begin)
                flat = torch.empty(math.prod(entry.shape), dtype=DTYPES[entry.dtype])
                if file.readinto(flat.view(torch.uint8).numpy().data) != entry.end - entry.begin:
                    raise CheckpointError(
                        f"{where} ends within tensor {describe(name)}; download or make it again"
                    )
                tensor = flat.view(entry.shape).float()
                check_finite(name, tensor, where)
                yield name, tensor
    except OSError as exc:
        reason = reason_of(exc)
        raise CheckpointError(
            f"{where} cannot be read: {reason}; download or make it again"
        ) from exc


def check_finite(name: str, tensor: Tensor, where: str) -> None:
    """Raise if a tensor holds NaN or an infinity.

    Raises:
        CheckpointError: With the tensor's name and the counts.
    """
    if bool(torch.isfinite(tensor).all()):
        return
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    raise CheckpointError(
        f"{where}: tensor {describe(name)} holds {nan + infinite} of {tensor.numel()} values that "
        f"are not finite ({nan} NaN, {infinite} infinite); train again from an earlier checkpoint"
    )


def _check_entries(
    headers: Mapping[Path, Mapping[str, TensorEntry]], expected: Mapping[str, Tensor]
) -> None:
    where = quoted(next(iter(headers)))
    names = [name for entries in headers.values() for name in entries]
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CheckpointError(f"{where}: tensor {describe(twice)} is in two shards, expected one")
    for name in names:
        if name not in expected and _bare(name) in expected:
            raise _wrapped(where, name)
    if missing := [name for name in expected if name not in set(names)]:
        raise CheckpointError(
            f"{where} lacks {len(missing)} of {len(expected)} tensors: {_listed(missing)}; "
            "config.json and weights must come from the same training run"
        )
    if unexpected := [name for name in names if name not in expected]:
        raise CheckpointError(
            f"{where} holds {len(unexpected)} unexpected tensors: {_listed(unexpected)}; "
            "config.json and weights must come from the same training run"
        )
    for path, entries in headers.items():
        for name, entry in entries.items():
            _check_entry(path, name, entry, tuple(expected[name].shape))


def _bare(name: str) -> str:
    """Return a name without what modules around the network, or around its parts, put into it."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        parts.pop(0)
    return ".".join(parts)


def _wrapped(where: str, name: str) -> CheckpointError:
    mark = next(mark for mark in WRAPPERS if mark in name.split("."))
    return CheckpointError(
        f"{where}: tensor {quote(name)} has the name that {WRAPPERS[mark]} gives it, expected "
        f"{quote(_bare(name))}; save the weights of the network inside it, MODEL.{mark}, or take "
        f"'{mark}.' out of the names"
    )


def _check_entry(path: Path, name: str, entry: TensorEntry, want: tuple[int, ...]) -> None:
    where = f"{quoted(path)}: tensor {describe(name)}"
    if entry.shape != want:
        raise CheckpointError(
            f"{where} has shape {list(entry.shape)}, the network of config.json wants "
            f"{list(want)}; config.json and weights must come from the same training run"
        )
    if entry.dtype not in DTYPE_BYTES:
        raise CheckpointError(
            f"{where} has dtype {entry.dtype}, expected {', '.join(DTYPE_BYTES)}; "
            "save the weights again in float16"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(describe(name) for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
