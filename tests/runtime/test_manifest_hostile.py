"""Whatever the bytes of a manifest are, the reader accepts a right one or raises one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import manifests
import pytest
from jsonschema import Draft202012Validator
from manifests import GOLDEN, SCHEMA, Document, Place, at, encode, refused

from mvsdk.errors import BundleError
from mvsdk.manifest import MAX_MANIFEST_BYTES, Manifest

NULLABLE = (
    *("step", "residency", "text_file", "value_db"),
    *("delegate", "deployment_target", "function"),
)
"""Keys for which null is a right value, though not everywhere."""


def document() -> Document:
    """Return the golden manifest with less in it, as every place of it is broken in many ways."""
    doc = manifests.document()
    for component in doc["components"].values():
        del component["variants"][3:]
        component["variants"][2]["function"] = "main"
    return doc


def changed(place: Place, value: object) -> Document:
    result = document()
    at(result, place[:-1])[place[-1]] = value
    return result


def read_or_refuse(payload: bytes) -> Manifest | None:
    try:
        return Manifest.from_json(payload)
    except BundleError:
        refused(payload)
        return None


VARIANT = Draft202012Validator({"$defs": SCHEMA.schema["$defs"], "$ref": "#/$defs/component"})


def schema_refuses(doc: Document, place: Place) -> bool:
    """Ask the part of the schema that the place is in, which is faster than asking all of it."""
    key = str(place[0])
    part = {"$defs": SCHEMA.schema["$defs"], "allOf": [SCHEMA.schema["properties"][key]]}
    if not Draft202012Validator(part).is_valid(doc[key]):
        return True
    return key == "components" and not all(map(VARIANT.is_valid, doc[key].values()))


BULKY = ("files", "inputs", "outputs", "tools")
"""Parts of variants that are alike in all of them."""


def walk(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every value below the top, the first of each list's items."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key.startswith("x-") or (place[-2:] == ("variants", 2) and key in BULKY):
                continue
            yield (*place, key)
            yield from walk(child, (*place, key))
    elif isinstance(value, list) and value:
        # Of the variants those after the first: one that is compiled for a chip, and a package.
        for i in (1, 2) if place[-1] == "variants" else (0,):
            yield (*place, i)
            yield from walk(value[i], (*place, i))


SAME = {"text_encoder", "vae_decoder", "1", "2"}
"""Keys of components and schedules that hold nothing which unet and 4 do not hold."""
PLACES = [place for place in walk(document()) if not SAME & {*place[1:3]}]


def kind(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


@pytest.mark.parametrize(
    "wrong",
    [None, True, 7, "text", [], {}, ["text"], {"key": 1}],
    ids=["null", "bool", "number", "string", "list", "object", "filled list", "filled object"],
)
def test_wrong_type_anywhere_is_refused_by_reader_and_schema(wrong: object) -> None:
    original = document()
    for place in PLACES:
        if kind(at(original, place)) == kind(wrong):
            continue
        if wrong is None and place[-1] in NULLABLE:
            continue
        broken = changed(place, wrong)
        refused(encode(broken))
        if (place, wrong) != (("tokenizer",), None):  # the task decides that, not the part
            assert schema_refuses(broken, place), place


HOSTILE: list[object] = [
    *(-1, 0, 1.5, 2**31, 2**53, 10**400, 1e308, float("nan"), float("-inf")),
    *("", "a" * 100_000, "line\nbreak", "\ud800", "../../etc/passwd", "9" * 5000),
    *([[[[[[[]]]]]]], [None] * 2000, [10**400], {"": {"": {}}}, {str(i): i for i in range(2000)}),
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_value_anywhere_gives_a_manifest_or_a_one_line_refusal(value: object) -> None:
    for place in PLACES:
        payload = encode(changed(place, value))
        if (manifest := read_or_refuse(payload)) is not None:  # the value is right there
            assert Manifest.from_json(manifest.to_json()) == manifest


def test_every_key_is_required_by_reader_and_schema() -> None:
    for place in PLACES:
        free = ("tools", "schedules", "costs", "unet")
        if isinstance(place[-1], int) or place[-2:-1] in [(name,) for name in free]:
            continue
        broken = document()
        del at(broken, place[:-1])[place[-1]]
        assert str(place[-1]) in refused(encode(broken)) or place == ("format",)
        assert schema_refuses(broken, place) if len(place) > 1 else not SCHEMA.is_valid(broken)


def test_unknown_keys_are_refused_except_x_keys_at_the_top() -> None:
    free = ("components", "tools", "schedules", "conditioning", "costs")
    for place in [(), *PLACES]:
        if isinstance(at(document(), place), dict) and not {*free} & {*place[-2:]}:
            broken = document()
            at(broken, place)["surprise"] = 1
            assert "'surprise' is unknown" in refused(encode(broken))
            assert schema_refuses(broken, place) if place else not SCHEMA.is_valid(broken)
    extended = {**document(), "x-mine": {"a": [1, None, "b"]}}
    assert Manifest.from_json(encode(extended)).extensions["x-mine"] == {"a": [1, None, "b"]}
    assert SCHEMA.is_valid(extended)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../x",
            "a/../x",
            "..",
            ".",
            "./x",
            "a/./b",
            "/etc/passwd",
            "//server/x",
            "a//b",
            "a/",
            "",
        ),
        *(
            "..\\x",
            "a\\b",
            "C:\\x",
            "C:/x",
            "C:x",
            "\\\\server\\x",
            "file:stream",
            "~/x",
            ".hidden",
        ),
        *(
            "a b",
            "a\x00b",
            "a\nb",
            "ä",
            "a.",
            "a./b",
            "nul",
            "a/CON.txt",
            "com1",
            "a" * 256,
            "%2e%2e/x",
        ),
    ],
)
def test_path_that_could_leave_the_bundle_is_refused(path: str) -> None:
    broken = document()
    variant = broken["components"]["unet"]["variants"][0]
    variant["model"] = variant["files"][0]["path"] = path
    assert "components.unet.variants[0]" in refused(encode(broken))
    if path not in ("nul", "a/CON.txt", "com1"):
        assert not SCHEMA.is_valid(broken)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (GOLDEN[:-100], "is not JSON"),
        (b"\xff\xfe{}", "not UTF-8 at byte 0"),
        (b"\xef\xbb\xbf" + GOLDEN, "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 100 + b"]" * 100, "nested too deeply"),
        (b'{"x-a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"format": "mvbundle", "x-a": NaN}', "NaN, want finite numbers only"),
        (b'{"format": "mvbundle", "x-a": Infinity}', "Infinity, want finite numbers only"),
        (b'{"format": "mvbundle", "x-a": -Infinity}', "-Infinity, want finite numbers only"),
        (b'{"format": "mvbundle", "x-a": 1e999}', "x-a is inf, want a finite number"),
        (b'{"format": "mvbundle", "x-a": ' + b"9" * 5000 + b"}", "oversized number"),
        (b'{"format": "mvbundle", "x-a": ' + b"9" * 400 + b"}", "an integer of 1329 bits"),
        (b'{"format": "mvbundle", "x-a": "\\ud800"}', "unpaired surrogates"),
        (b'{"format": "mvbundle", "\\ud800": 1}', "text without surrogates"),
        (b'{"format": "mvbundle", "format": "mvbundle"}', "'format' is given twice"),
        (GOLDEN.replace(b'"width": 64', b'"width": 64, "width": 65'), "'width' is given twice"),
        (b"[]", "not an mvbundle manifest"),
        (b"null", "not an mvbundle manifest"),
        (b'"mvbundle"', "not an mvbundle manifest"),
        (b'{"format": "zip"}', "not an mvbundle manifest"),
        (b'{"format": "mvbundle"}', "format_version is null"),
        (b'{"format": "mvbundle", "format_version": true}', "format_version is true"),
        (b'{"format": "mvbundle", "format_version": 0}', "format_version is 0"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "bytes, want at most 4194304"),
    ],
)
def test_bytes_that_are_no_manifest_are_refused(payload: bytes, words: str) -> None:
    assert words in refused(payload)
