"""What a manifest costs to read is bounded, and so is what a refusal quotes of it."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from manifests import Document, document, encode, golden, refused

from mvsdk._json import depth_of, describe, has_more_values
from mvsdk.manifest import MAX_MANIFEST_BYTES, Manifest

MIB = 1 << 20


def _count(value: Any) -> int:
    """Count the values of a tree."""
    children = value.values() if isinstance(value, dict) else value
    return 1 + (sum(map(_count, children)) if isinstance(value, dict | list) else 0)


@pytest.mark.parametrize("item", ["[]", "{}", '""', "0", '{"a":0}', "[0]", "[[[]]]"])
def test_a_manifest_of_countless_values_costs_no_memory(item: str) -> None:
    doc = encode(document())
    filler = ",".join([item] * ((MAX_MANIFEST_BYTES - len(doc) - 100) // (len(item) + 1)))
    payload = doc[:-1] + b',"x-a":[' + filler.encode() + b"]}"
    assert 4_000_000 < len(payload) <= MAX_MANIFEST_BYTES
    tracemalloc.start()
    try:
        error = refused(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.rule == "D6"
    assert peak < MIB


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


def _depth(value: Any) -> int:
    """Count the levels of a tree."""
    children = value.values() if isinstance(value, dict) else value
    deeper = max(map(_depth, children), default=0) if isinstance(value, dict | list) else -1
    return 1 + deeper


def test_levels_are_counted_as_a_parser_makes_them() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        tree = _tree(chance, 6)
        payload = json.dumps(tree, indent=chance.choice([None, 0, 2])).encode()
        assert depth_of(payload) == _depth(tree)


@pytest.mark.parametrize("unit", [b'"', b'""', b'"\\', b'\\"', b"[", b"[ ", b",", b'a"b', b" "])
def test_counting_looks_at_every_byte_once(unit: bytes) -> None:
    """A pattern that tries again from every byte would take hours for these."""
    start = time.process_time()
    for ending in (b"", b'"', b"\\"):
        has_more_values(unit * (MIB // len(unit)) + ending, MAX_MANIFEST_BYTES)
        depth_of(unit * (MIB // len(unit)) + ending)
    assert time.process_time() - start < 5.0


def test_numbers_of_endless_digits_are_read_or_refused_at_once() -> None:
    start = time.process_time()
    doc = encode(document("upscale"))[:-1]
    for number in (b"0." + b"1" * 4_000_000, b"1" * 4_000_000 + b".5", b"0." + b"0" * 4_000_000):
        payload = doc + b',"x-a":' + number + b"}"
        if number.startswith(b"0."):
            Manifest.from_json(payload)
        else:
            assert refused(payload).rule == "D7"
    assert time.process_time() - start < 5.0


# Programs that are made to be slow to check


def _loops(count: int, inside: list[Document], name: str) -> list[Document]:
    return [
        {
            "op": "loop",
            "count": 1,
            "index": f"{name}_{number}",
            "carried": {},
            "operations": [{**item, "output": f"{name}_{number}_a"} for item in inside],
            "collected": {
                f"{name}_{number}_a": {
                    "output": f"{name}_{number}_b",
                    "axis": 0,
                    "overlap": 0,
                    "blend": None,
                }
            },
        }
        for number in range(count)
    ]


def _many_scopes(doc: Document) -> None:
    """Make 16000 arrays, and 511 loops that could each copy what is known."""
    program = doc["programs"][0]
    numbers = {"op": "numbers", "values": [0]}
    wide = {"outputs": {f"t{n}": "" for n in range(64)}}
    component = doc["components"]["upscaler"]
    for side in (component, *component["variants"]):
        kept = ("shape", "type") if side is component else ("dtype", "scale", "zero_point")
        like = {key: side["outputs"][0][key] for key in kept}
        side["outputs"] = [{"name": name, **like} for name in wide["outputs"]]
    run = program["operations"][0]["operations"][1]
    take = program["operations"][0]["operations"][0] | {"start": 0}
    runs = [
        run | {"outputs": {name: f"x{n}_{name}" for name in wide["outputs"]}} for n in range(200)
    ]
    program["operations"] = [take, *runs, *_loops(300, [numbers], "l")]


def _many_names(doc: Document) -> None:
    doc["programs"][0]["operations"] = [
        {"op": "numbers", "values": [0] * 500, "output": f"a{n}"} for n in range(512)
    ]


def _long_index(doc: Document) -> None:
    program = doc["programs"][0]
    for n in range(8):
        bound = 3.4e38
        program["inputs"][f"n{n}"] = {
            "kind": "number",
            "minimum": -bound,
            "maximum": bound,
            "default": 0,
            "whole": True,
        }
    take = program["operations"][0]["operations"][0]
    take["start"] = {"start": -(2**31) + 1, "steps": {f"n{n}": 2**31 - 1 for n in range(8)}}


def _many_folders(doc: Document) -> None:
    files = [{"path": "zz/" * 80 + f"{n}", "bytes": 0, "sha256": "0" * 64} for n in range(5000)]
    files.append({"path": "zz", "bytes": 0, "sha256": "0" * 64})
    like = doc["components"]["upscaler"]["variants"][0]
    variants = doc["components"]["upscaler"]["variants"] = []
    for n in range(50):
        own = [like["files"][0], *files[n * 100 : n * 100 + 100], files[-1]]
        chip = {"slug": f"chip{n}", "htp_arch": 75, "soc_model": 57}
        variants.append(like | {"id": f"v{n}", "files": own, "chip": chip})
        variants[n] |= {"target": "snapdragon", "format": "qnn_context"}


@pytest.mark.parametrize(
    ("change", "rule", "where"),
    [
        (_many_scopes, "P5", "programs[0].output"),
        (_many_names, "P5", "programs[0].output"),
        (_long_index, "P8", "programs[0].operations[0].operations[0].start"),
        (_many_folders, "F3", ""),
    ],
)
def test_programs_are_checked_in_bounded_time(
    change: Callable[[Document], None], rule: str, where: str
) -> None:
    doc = document("upscale")
    change(doc)
    start = time.process_time()
    error = refused(doc)
    assert (error.rule, error.where) == (rule, where)
    assert time.process_time() - start < 3.0


# What can be read can be written


def _deep(count: int) -> Document:
    tree: Any = 0
    for _ in range(28):
        tree = [tree]
    return document("upscale") | {"x-a": [tree] * count}


def test_a_manifest_that_is_too_long_with_indentation_is_written_without() -> None:
    payload = encode(_deep(3000))
    assert len(payload) < MAX_MANIFEST_BYTES < len(json.dumps(_deep(3000), indent=2))
    manifest = Manifest.from_json(payload)
    written = manifest.to_json()
    assert written == payload + b"\n"
    assert Manifest.from_json(written).to_json() == written


def test_a_manifest_that_fits_keeps_its_indentation() -> None:
    written = Manifest.from_json(encode(_deep(100))).to_json()
    assert written == (json.dumps(_deep(100), indent=2, ensure_ascii=False) + "\n").encode()


def test_an_older_manifest_is_refused_where_version_3_would_be_too_long() -> None:
    doc = json.loads(golden("version_1_text_to_video"))
    doc["x-a"] = ""
    doc["x-a"] = "x" * (MAX_MANIFEST_BYTES - len(encode(doc)))
    assert len(encode(doc)) == MAX_MANIFEST_BYTES
    error = refused(doc)
    assert error.rule == "D13"
    assert "bytes in canonical form, expected at most 4194304" in str(error)
    doc["x-a"] = doc["x-a"][10_000:]
    manifest = Manifest.from_json(encode(doc))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_no_document_of_512_kib_outgrows_the_bound() -> None:
    doc = document("upscale")
    doc["x-a"] = []
    room = ((1 << 19) - len(encode(doc))) // len("9e15,")
    payload = encode(doc).replace(b'"x-a":[]', b'"x-a":[' + b"9e15," * (room - 1) + b"9e15]")
    assert (1 << 19) - 20 < len(payload) <= 1 << 19
    manifest = Manifest.from_json(payload)
    assert Manifest.from_json(manifest.to_json()) == manifest


# What a message quotes


LONG = "n" + "a" * 127
"""The longest name that is allowed."""
WIDE = "\U0001f600" * 512
"""A tensor's name whose letters are no letters."""


def _unet(doc: Document) -> Document:
    return doc["components"]["unet"]


def _deep_names(doc: Document) -> None:
    tree: Any = "no number"
    for _ in range(30):
        tree = {LONG: tree}
    doc["x-a"] = tree


def _case_clash(doc: Document) -> None:
    for index, path in enumerate(("a" * 250, "A" + "a" * 249)):
        variant = _unet(doc)["variants"][(0, 3)[index]]
        variant["files"][0]["path"] = variant["model"] = path


QUOTING: dict[str, Callable[[Document], object]] = {
    "many long names": lambda doc: doc.update(
        components={f"{i:02}{LONG[:120]}": _unet(doc) for i in range(30)}
    ),
    "nested long keys": _deep_names,
    "paths": lambda doc: _unet(doc)["variants"][0].update(model="/".join(["d" * 120] * 2)),
    "paths that clash": _case_clash,
    "name of a tensor": lambda doc: _unet(doc)["variants"][0]["inputs"][0].update(name=WIDE),
    "tensor of a run": lambda doc: doc["programs"][0]["operations"][1]["inputs"].update(
        {WIDE: "start"}
    ),
    "id of a variant": lambda doc: doc["sets"][0]["variants"].update(unet=LONG),
    "component of a set": lambda doc: doc["sets"][0]["variants"].update({LONG: LONG}),
    "chip": lambda doc: _unet(doc)["variants"][0].update(
        chip={"slug": LONG, "htp_arch": 75, "soc_model": 57}
    ),
    "pack": lambda doc: _unet(doc)["variants"][0].update(pack=LONG),
    "sampler": lambda doc: doc["programs"][0]["operations"][3].update(sampler=LONG),
    "array": lambda doc: doc["programs"][0].update(output="a" * 64),
    "component of a record": lambda doc: doc["verification"][0].update(component=LONG),
    "variant of a record": lambda doc: doc["verification"][0].update(variant=LONG),
    "costs": lambda doc: doc["costs"].update({LONG: {"flops": 1}}),
    "unknown key": lambda doc: doc.update({WIDE: 1}),
    "text": lambda doc: doc.update(name=WIDE),
    "tool": lambda doc: _unet(doc)["variants"][0]["tools"].update({LONG: ""}),
    "requires": lambda doc: _unet(doc)["variants"][0]["requires"].update({LONG: "1"}),
}


@pytest.mark.parametrize("change", QUOTING.values(), ids=QUOTING)
def test_a_refusal_quotes_little_of_what_it_refuses(change: Callable[[Document], object]) -> None:
    doc = document()
    change(doc)
    message = str(refused(encode(doc).replace(b'"no number"', b"1e999")))
    assert len(message) < 500
    for foreign in ("a" * 65, "d" * 50, "\U0001f600" * 60):
        assert foreign not in message


@pytest.mark.parametrize("text", ["x" * 49, "\U0001f600" * 60, "\x00" * 500, "'\"" * 40])
def test_foreign_text_is_cut_by_what_is_printed(text: str) -> None:
    said = describe(text)
    assert said.isprintable()
    assert len(said) < 80
    assert f"({len(text)} letters)" in said
    assert "..." in said
