"""What a manifest costs to read is bounded, and so is what a refusal quotes of it."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from manifests import GOLDEN, ROOT, Document, document, refused, variant_of, variants_of

from mvsdk._parse import MAX_VALUES, describe, has_more_values
from mvsdk.errors import BundleError
from mvsdk.manifest import MAX_MANIFEST_BYTES, Manifest

GOLDENS = sorted((ROOT / "tests/golden").glob("manifest*.json"))
MIB = 1 << 20


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _count(value: Any) -> int:
    """Count the values of a tree."""
    children = value.values() if isinstance(value, dict) else value
    return 1 + (sum(map(_count, children)) if isinstance(value, dict | list) else 0)


def _with_values(item: object, count: int) -> bytes:
    """Return the golden manifest with items below an x- key, of that many values in all."""
    rest = count - _count({**document(), "x-a": []})
    return _compact({**document(), "x-a": [item] * (rest // _count(item))})


@pytest.mark.parametrize("item", ["[]", "{}", '""', "0", '{"a":0}', "[0]", "[[[]]]"])
def test_a_manifest_of_countless_values_costs_no_memory(item: str) -> None:
    filler = ",".join([item] * ((MAX_MANIFEST_BYTES - len(GOLDEN) - 100) // (len(item) + 1)))
    payload = _compact(document())[:-1] + b',"x-a":[' + filler.encode() + b"]}"
    assert 4_000_000 < len(payload) <= MAX_MANIFEST_BYTES
    tracemalloc.start()
    try:
        message = refused(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "the document is of more than 262144 values, want so many or fewer" in message
    assert peak < MIB


def test_as_many_values_as_are_allowed_are_read_and_written() -> None:
    payload = _with_values([], MAX_VALUES)
    manifest = Manifest.from_json(payload)
    assert Manifest.from_json(manifest.to_json()) == manifest
    refused(_with_values([], MAX_VALUES + 1))


def test_a_writer_refuses_more_values_than_a_reader() -> None:
    manifest = Manifest.from_json(GOLDEN)
    object.__setattr__(manifest, "extensions", {"x-a": [0] * MAX_VALUES})
    with pytest.raises(BundleError, match="of more than 262144 values, want so many or fewer"):
        manifest.to_json()


def _tree(chance: random.Random, depth: int) -> Any:
    kind = chance.random()
    if depth and kind < 0.3:
        return [_tree(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    if depth and kind < 0.6:
        names = ("a", "[", ",", '\\"{', "]")
        return {f"{chance.choice(names)}{i}": _tree(chance, depth - 1) for i in range(3)}
    return chance.choice([1, "x", ",[", '{"', "\\", '\\\\"', None, True, 1.5, ""])


def test_values_are_counted_as_a_parser_makes_them() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        tree = _tree(chance, 5)
        payload = json.dumps(tree, indent=chance.choice([None, 0, 2])).encode()
        assert not has_more_values(payload, _count(tree))
        assert _count(tree) == 1 or has_more_values(payload, _count(tree) - 1)


@pytest.mark.parametrize(
    "unit", [b'"', b'""', b'"\\', b'\\"', b"[", b"[ ", b"[]", b",", b'a"b', b'"x', b" "]
)
def test_counting_looks_at_every_byte_once(unit: bytes) -> None:
    """A pattern that tries again from every byte would take hours for these."""
    start = time.process_time()
    for ending in (b"", b'"', b"\\"):
        has_more_values(unit * (MAX_MANIFEST_BYTES // len(unit)) + ending, MAX_MANIFEST_BYTES)
    assert time.process_time() - start < 10.0


# What can be read can be written


def _records(count: int) -> Document:
    doc = document()
    doc["verification"] = [{**doc["verification"][0], "case": "x" * 170}] * count
    return doc


def test_a_manifest_that_is_too_long_with_indentation_is_written_without() -> None:
    payload = _compact(_records(9_000))
    assert len(payload) < MAX_MANIFEST_BYTES < len(json.dumps(_records(9_000), indent=2))
    manifest = Manifest.from_json(payload)
    written = manifest.to_json()
    assert written == payload + b"\n"
    assert Manifest.from_json(written).to_json() == written


def test_a_manifest_that_fits_keeps_its_indentation() -> None:
    written = Manifest.from_json(_compact(_records(100))).to_json()
    assert written == (json.dumps(_records(100), indent=2, ensure_ascii=False) + "\n").encode()


def test_numbers_that_would_outgrow_the_bound_are_refused_at_once() -> None:
    payload = _with_values("z", MAX_VALUES).replace(b'"z"', b"1e15")
    assert len(payload) < MAX_MANIFEST_BYTES // 2
    assert "bytes in canonical form, want at most 4194304" in refused(payload)


def test_version_1_is_refused_where_version_2_would_be_too_long() -> None:
    doc = json.loads((ROOT / "tests/golden/manifest.json").read_text())
    doc["x-a"] = ""
    doc["x-a"] = "x" * (MAX_MANIFEST_BYTES - len(_compact(doc)))
    assert len(_compact(doc)) == MAX_MANIFEST_BYTES
    assert "bytes in canonical form, want at most 4194304" in refused(_compact(doc))
    doc["x-a"] = doc["x-a"][10_000:]
    manifest = Manifest.from_json(_compact(doc))
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.name)
def test_golden_manifests_are_read_and_written_as_before(path: Path) -> None:
    written = Manifest.from_json(path.read_bytes()).to_json()
    assert Manifest.from_json(written).to_json() == written
    if "v2" in path.name:
        assert written == path.read_bytes()


# What a message quotes


LONG = "n" + "a" * 127
"""The longest name that is allowed."""
WIDE = "\U0001f600" * 512
"""A tensor's name whose letters take ten characters each when they are printed."""


def _spread_names(doc: Document) -> None:
    doc["components"] = {f"{i:02}{LONG[:120]}": doc["components"]["unet"] for i in range(16)}


def _deep_names(doc: Document) -> None:
    tree: Any = "no number"
    for _ in range(30):
        tree = {LONG: tree}
    doc["x-a"] = tree


def _long_paths(doc: Document) -> None:
    variant = variants_of(doc)[0]
    variant["model"] = "/".join(["d" * 120] * 2)


def _case_clash(doc: Document) -> None:
    for index, path in enumerate(("a" * 250, "A" + "a" * 249)):
        variant = variants_of(doc)[index]
        variant["files"][0]["path"] = variant["model"] = path


def _wide_tensor(doc: Document) -> None:
    for variant in variants_of(doc):
        variant["inputs"][0]["name"] = WIDE


def _wide_conditioning(doc: Document) -> None:
    doc["sampler"]["conditioning"] = {WIDE: [0.0]}


def _long_variant(doc: Document) -> None:
    for variant in variants_of(doc)[:2]:
        variant["id"] = LONG


def _long_chip(doc: Document) -> None:
    found = variant_of(doc, "onnx-fp32")
    found["chip"] = {"slug": LONG, "htp_arch": 75, "soc_model": 57}


def _long_record(**changes: str) -> Callable[[Document], None]:
    return lambda doc: doc["verification"][0].update(changes)


QUOTING: dict[str, Callable[[Document], object]] = {
    "many long names": _spread_names,
    "nested long keys": _deep_names,
    "paths": _long_paths,
    "paths that clash": _case_clash,
    "name of a tensor": _wide_tensor,
    "name of a conditioning": _wide_conditioning,
    "id of a variant": _long_variant,
    "chip": _long_chip,
    "component of a record": _long_record(component=LONG),
    "variant of a record": _long_record(variant=LONG),
    "costs": lambda doc: doc["costs"].update({LONG: {"flops": 1}}),
    "unknown key": lambda doc: doc.update({WIDE: 1}),
    "text": lambda doc: doc.update(name=WIDE),
    "step counts": lambda doc: doc["sampler"].update(default_steps=999),
    "tool": lambda doc: variants_of(doc)[0]["tools"].update({LONG: ""}),
}


@pytest.mark.parametrize("change", QUOTING.values(), ids=QUOTING)
def test_a_refusal_quotes_little_of_what_it_refuses(change: Callable[[Document], object]) -> None:
    doc = document()
    change(doc)
    message = refused(_compact(doc).replace(b'"no number"', b"1e999"))
    assert len(message) < 400
    for foreign in ("a" * 50, "d" * 50, "\\U0001f600" * 6):
        assert foreign not in message


@pytest.mark.parametrize("text", ["x" * 49, "\U0001f600" * 60, "\x00" * 500, "'\"" * 40])
def test_foreign_text_is_cut_by_what_is_printed(text: str) -> None:
    said = describe(text)
    assert said.isprintable()
    assert len(said) < 80
    assert f"({len(text)} letters)" in said
    assert "..." in said
