"""What tests of the manifest have in common: the golden ones, and how to break them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mvsdk.errors import BundleError
from mvsdk.manifest import Manifest

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "tests/golden/manifests"
NAMES = sorted(path.stem for path in MANIFESTS.glob("*.json"))
NEWEST = [name for name in NAMES if not name.startswith("version_")]
"""Golden manifests of version 3."""
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/bundle.schema.json").read_text("utf-8")))

Document = dict[str, Any]

sys.path.insert(0, str(ROOT / "tests/golden"))  # for `corpus`, which makes bytes of cases


def golden(name: str = "sticker") -> bytes:
    """Return the bytes of a golden manifest."""
    return (MANIFESTS / f"{name}.json").read_bytes()


def document(name: str = "sticker") -> Document:
    """Return the document of a golden manifest."""
    return json.loads(golden(name))


def text_to_video() -> Manifest:
    """Return a manifest whose clips are made of a prompt, for all targets."""
    return Manifest.from_json(golden("sticker"))


def image_to_video() -> Manifest:
    """Return a manifest whose clips are made of a picture, decoded two frames at once."""
    return Manifest.from_json(golden("animator"))


def encode(value: object) -> bytes:
    """Return a document without white space."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def refused(payload: bytes | Document) -> BundleError:
    """Return a refusal, which is one printable line of bounded length that ends with its rule."""
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(payload if isinstance(payload, bytes) else encode(payload))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert message.endswith(f"[{caught.value.rule}]")
    return caught.value
