"""Whatever the bytes of a manifest are, it is read or refused in one line, by a rule."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from manifests import NAMES, document, encode, golden, refused

from mvsdk.errors import BundleError
from mvsdk.manifest import Manifest

MUTATIONS = 2000
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 8, 64, 1000, 2**31 - 1, 2**32, 2**53 - 1, 2**53, 10**400),
    *(0.5, -0.0, 1e-46, 1e308, 3.5e38, float("nan"), float("inf")),
    *(
        "",
        "a",
        "start",
        "latents",
        "A b",
        "../x",
        "nul",
        "\ud800",
        "🚀" * 300,
        "a" * 5000,
        "end_to_end",
    ),
    *([], {}, [[]], [0], ["a"], {"a": 0}, {"": {}}, [None] * 70, {f"n{i}": i for i in range(70)}),
]


def places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield where every value is."""
    yield place
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in entries:
            yield from places(child, (*place, key))


def mutated(doc: Any, chance: random.Random, where: list[tuple[str | int, ...]]) -> bytes:
    """Return a document with one to three changes, some of them in its bytes."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        *way, last = chance.choice(where)
        parent = doc
        try:
            for step in way:
                parent = parent[step]
            _mutate(parent, last, doc, chance, where)
        except (AttributeError, KeyError, IndexError, TypeError):
            continue  # an earlier change took that away
    try:
        payload = json.dumps(doc, ensure_ascii=chance.random() < 0.5).encode()
    except UnicodeEncodeError:
        payload = json.dumps(doc).encode()
    if chance.random() < 0.1:
        at = chance.randrange(len(payload))
        noise = bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 2))))
        payload = payload[:at] + noise + payload[at + chance.choice((0, 1, 9)) :]
    return payload


def _mutate(parent: Any, last: Any, doc: Any, chance: random.Random, where: list[Any]) -> None:
    kind = chance.random()
    if kind < 0.45:
        parent[last] = chance.choice(VALUES)
    elif kind < 0.6:
        del parent[last]
    elif kind < 0.8:  # something that is right elsewhere
        value = doc
        for step in chance.choice(where):
            value = value[step]
        parent[last] = json.loads(json.dumps(value))
    elif isinstance(parent, list):
        parent.insert(last, json.loads(json.dumps(parent[last])))
    elif kind < 0.9:
        parent[chance.choice(("a", "x-a", "surprise", "unet", "sample"))] = parent[last]
    else:
        parent[chance.choice(list(parent))] = parent.pop(last)


def read_or_refuse(payload: bytes) -> bool:
    """Read a manifest and write it again, or make sure that its refusal is as it should be."""
    try:
        manifest = Manifest.from_json(payload)
    except BundleError as exc:
        error = exc
    else:
        assert Manifest.from_json(manifest.to_json()) == manifest
        return True
    message = str(error)
    assert message.isprintable()
    assert message.endswith(f"[{error.rule}]")
    assert len(message) < 1000
    assert error.where is not None
    return False


def test_mutated_manifests_are_read_or_refused() -> None:
    chance = random.Random(3)
    names = [name for name in NAMES if len(golden(name)) < 23_000]
    docs = {name: document(name) for name in names}
    where = {name: list(places(doc))[1:] for name, doc in docs.items()}
    read = 0
    for _ in range(MUTATIONS):
        name = chance.choice(names)
        copy = json.loads(golden(name))
        read += read_or_refuse(mutated(copy, chance, where[name]))
    assert MUTATIONS // 50 < read < MUTATIONS // 2


@pytest.mark.parametrize("size", [0, 1, 7, 100])
def test_random_bytes_are_refused(size: int) -> None:
    chance = random.Random(size)
    for _ in range(200):
        payload = bytes(chance.choice(b'{}[]":,0123eE+-.\\utrfalsn \xc3\xa9') for _ in range(size))
        assert refused(payload).rule in {"D1", "D2", "D3", "D4", "D5", "D7", "D8"}


@pytest.mark.parametrize("share", [1, 2, 3, 5, 8, 13, 21, 34, 55, 89])
def test_a_part_of_a_manifest_is_refused(share: int) -> None:
    payload = encode(document("upscale"))
    assert refused(payload[: len(payload) * share // 100]).rule in {"D1", "D2"}
