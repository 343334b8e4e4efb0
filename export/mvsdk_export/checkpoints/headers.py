"""The header of a safetensors file, read and checked before any weight is.

Layout: 8 bytes little-endian header size, then that much JSON (tensor -> dtype, shape,
data_offsets), then the data. A file of another format under this name, a pickle above all, is
recognised and never opened by a library that would run it.

Reference:
    https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mvsdk._json import describe
from mvsdk._text import quoted, reason_of
from mvsdk_export.checkpoints.documents import parse_object
from mvsdk_export.errors import CheckpointError

MAX_HEADER_BYTES = 16 << 20
"""About a hundred times the header of a network of a billion parameters."""

DTYPE_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
"""Types that weights may have on disk."""
OTHER_DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("I16", "U16"), 2),
    **dict.fromkeys(("I32", "U32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CONVERT = (
    "convert it on a machine where it may run, with safetensors.torch.save_file("
    'torch.load(PICKLE, weights_only=True), "{name}")'
)
_MAGIC = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes around a pickle"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"version https://git-lfs", "a git-lfs pointer; run git lfs pull"),
    (b"\x93NUMPY", "a numpy file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """A tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> Mapping[str, TensorEntry]:
    """Read and check the header of a safetensors file.

    Returns:
        Tensor name -> entry.

    Raises:
        CheckpointError: If the file is of another format, truncated, or its offsets are wrong.
    """
    name = quoted(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(32)
            length = int.from_bytes(start[:8], "little")
            _check_format(path, start, size, length)
            file.seek(8)
            payload = file.read(length)
    except OSError as exc:
        reason = reason_of(exc)
        raise CheckpointError(f"{name} cannot be read: {reason}") from exc
    document = parse_object(payload, f"the header of {name}")
    document.pop("__metadata__", None)
    entries = {key: _entry(path, key, value) for key, value in document.items()}
    _check_offsets(path, entries, size - 8 - length)
    return entries


def is_pickle(path: Path) -> bool:
    """Return whether a file's name is one that pickled weights have.

    Hidden files are none: systems put such beside every file of a folder.
    """
    return path.suffix in PICKLE_SUFFIXES and not path.name.startswith(".")


def pickle_error(path: Path, wanted: str) -> CheckpointError:
    """Return the error that says why a pickle is not read, and how to convert it."""
    return CheckpointError(
        f"{quoted(path)} is a pickle, which can run any code when it is read, expected {wanted}; "
        f"{CONVERT.format(name=wanted)}"
    )


def _check_format(path: Path, start: bytes, size: int, length: int) -> None:
    name = quoted(path)
    looks_right = start[8:9] == b"{" and length <= MAX_HEADER_BYTES
    if not looks_right:  # not before: a header of 640 bytes begins like a pickle
        for magic, what in _MAGIC:
            if start.startswith(magic):
                advice = f"; {CONVERT.format(name=path.name)}" if "pickle" in what else ""
                raise CheckpointError(f"{name} is no safetensors file but {what}{advice}")
    if size < 8 or (length <= MAX_HEADER_BYTES and size < 8 + length):
        raise CheckpointError(
            f"{name} is truncated: {size} bytes, its header alone needs "
            f"{8 + length if size >= 8 else 8}; download or make it again"
        )
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{name} says that its header has {length} bytes, at most {MAX_HEADER_BYTES} are "
            "read; it is no safetensors file, or damaged: download or make it again"
        )
    if not looks_right:
        raise CheckpointError(
            f"{name} is no safetensors file: its header does not begin with '{{'; "
            "download or make it again"
        )


def _entry(path: Path, key: str, value: object) -> TensorEntry:
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    dtype, shape, offsets = (fields.get(k) for k in ("dtype", "shape", "data_offsets"))
    if type(dtype) is str and _are_sizes(shape) and _are_sizes(offsets):
        sizes, ends = cast("list[int]", shape), cast("list[int]", offsets)
        if len(fields) == 3 and len(ends) == 2 and len(sizes) <= 8:
            return TensorEntry(dtype=dtype, shape=tuple(sizes), begin=ends[0], end=ends[1])
    raise CheckpointError(
        f"{quoted(path)} describes tensor {describe(key)} wrongly, expected dtype, shape and "
        "data_offsets; download or make it again"
    )


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and item >= 0 for item in cast("list[object]", value)
    )


def _check_offsets(path: Path, entries: Mapping[str, TensorEntry], data_bytes: int) -> None:
    """Check that the tensors lie one after the other and fill the file."""
    place = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        width = DTYPE_BYTES.get(entry.dtype) or OTHER_DTYPE_BYTES.get(entry.dtype)
        if width is None:
            raise CheckpointError(
                f"{quoted(path)} has tensor {describe(key)} of dtype {describe(entry.dtype)}, "
                f"expected {', '.join(DTYPE_BYTES)}; save the weights again in float16"
            )
        if entry.begin != place or entry.end - entry.begin != width * math.prod(entry.shape):
            raise CheckpointError(
                f"{quoted(path)} has wrong offsets: tensor {describe(key)} of {entry.dtype} "
                f"{list(entry.shape)} at [{entry.begin}, {entry.end}], expected "
                f"[{place}, {place + width * math.prod(entry.shape)}]; download or make it again"
            )
        place = entry.end
    if place != data_bytes:
        fault = "is truncated" if place > data_bytes else "has bytes after its last tensor"
        raise CheckpointError(
            f"{quoted(path)} {fault}: {data_bytes} bytes of data, expected {place}; "
            "download or make it again"
        )
