"""Canonical JSON: equal manifests give equal bytes (docs/bundle_format.md, section 2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from mvsdk._json import MAX_MANIFEST_BYTES, check_size
from mvsdk.manifest.components import TensorSpec
from mvsdk.manifest.operations import Index


def to_plain(value: object) -> object:
    """Turn dataclasses into what json writes, one form per value: 1.0 is 1, keys are sorted."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, TensorSpec):
        return {key: to_plain(item) for key, item in value.to_document().items()}
    if isinstance(value, Index):
        return _fields(value) if value.steps else value.start
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value).items()
        return {str(key): to_plain(item) for key, item in sorted(entries, key=_by_number_then_name)}
    return value


def _fields(value: object) -> dict[str, object]:
    return {item.name: to_plain(getattr(value, item.name)) for item in fields(cast("Any", value))}


def _by_number_then_name(entry: tuple[object, object]) -> tuple[int, str]:
    key = entry[0]
    return (key if isinstance(key, int) else 0, str(key))


def encode(document: Mapping[str, object]) -> bytes:
    """Spell a document in canonical form: indented, or without white space if that is too long.

    Raises:
        BundleError: If it is too large in either.
    """
    payload = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    if len(payload) > MAX_MANIFEST_BYTES:
        payload = encode_compactly(document)
    check_size(payload, rule="D13")
    return payload


def encode_compactly(document: Mapping[str, object]) -> bytes:
    """Spell a document without white space, but for the final newline."""
    return (json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n").encode()
