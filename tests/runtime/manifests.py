"""What tests of the manifest have in common: the golden ones, and how to break them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mvsdk.errors import BundleError
from mvsdk.manifest import Manifest

ROOT = Path(__file__).parents[2]
GOLDEN = (ROOT / "tests/golden/manifest_v2.json").read_bytes()
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/bundle.schema.json").read_text()))

Document = dict[str, Any]
Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


def document() -> Document:
    """Return the golden manifest of a text-to-video bundle."""
    return json.loads(GOLDEN)


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def refused(payload: bytes | Document) -> str:
    """Return the message of a refusal, which is one printable line of bounded length."""
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(payload if isinstance(payload, bytes) else encode(payload))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert not message.endswith(".")
    return message


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def changed(place: Place, value: object) -> Document:
    result = document()
    at(result, place[:-1])[place[-1]] = copy.deepcopy(value)
    return result


def variants_of(doc: Document, component: str = "unet") -> list[Document]:
    return doc["components"][component]["variants"]


def variant_of(doc: Document, id_: str, component: str = "unet") -> Document:
    return next(found for found in variants_of(doc, component) if found["id"] == id_)


def tensors_named(doc: Document, name: str, component: str | None = None) -> list[Document]:
    """Return the tensors of that name, of one component or of all."""
    return [
        tensor
        for part, found in doc["components"].items()
        if component in (None, part)
        for variant in found["variants"]
        for tensor in (*variant["inputs"], *variant["outputs"])
        if tensor["name"] == name
    ]
