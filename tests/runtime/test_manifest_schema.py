"""docs/bundle.schema.json says the shape of what the reader takes, with its words and bounds."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import pytest
from corpus.cases import payload_of
from manifests import NAMES, ROOT, SCHEMA, document

from mvsdk import _json, targets
from mvsdk.manifest import components, operations, programs, records, samplers, tokenizers

DEFS: dict[str, Any] = SCHEMA.schema["$defs"]
SHAPE = {"D9", "D10", "D11", "D12"}
"""Rules that are about the shape, for the most part."""
BEYOND_SHAPE = re.compile(
    r"default_steps 3$|two (programs|variants) of|not sorted|of 4 steps$|more than 4096|2\\n"
    r"|version_[12]|version 3 called 2"
)
"""Cases of these rules that a schema cannot say, and what of versions 1 and 2 is dropped."""


@pytest.mark.parametrize("name", NAMES)
def test_golden_manifests_have_the_shape(name: str) -> None:
    SCHEMA.check_schema(SCHEMA.schema)
    SCHEMA.validate(document(name))


def test_what_has_not_the_shape_is_refused_by_the_schema_too() -> None:
    cases = json.loads((ROOT / "tests/golden/malformed.json").read_text("utf-8"))
    checked = 0
    for case in cases:
        if case["rule"] not in SHAPE or "edits" not in case or "text" in case["edits"][0]:
            continue
        if not BEYOND_SHAPE.search(case["name"]):
            checked += 1
            assert not _is_valid(case), case["name"]
    assert checked > 500


def test_what_is_odd_but_right_has_the_shape() -> None:
    for case in json.loads((ROOT / "tests/golden/accepted.json").read_text("utf-8")):
        if any("at" in edit for edit in case["edits"]):
            assert _is_valid(case), case["name"]


def _is_valid(case: dict[str, Any]) -> bool:
    """Ask the parts of the schema that the edits are in, which is faster than asking all of it."""
    document = json.loads(payload_of(case))
    top = DEFS["version_3" if document.get("format_version") == 3 else "version_2"]["properties"]
    for edit in case["edits"]:
        key, *further = edit["at"]
        if key not in top or key not in document or edit.keys() & {"rename", "copy"}:
            return SCHEMA.is_valid(document)
        value, part = _innermost(document[key], top[key], further)
        if part is not True and not SCHEMA.evolve(schema={"$defs": DEFS, **part}).is_valid(value):
            return False
    return True


def _innermost(value: Any, part: Any, way: list[str | int]) -> tuple[Any, Any]:
    """Follow a place to the object or list that has it, as long as schemas say one thing."""
    for step in way[:-1]:
        while isinstance(part, dict) and "$ref" in part:
            part = DEFS[part["$ref"].rpartition("/")[2]]
        if not isinstance(part, dict) or part.keys() & {"allOf", "oneOf", "anyOf"}:
            break
        inner = part.get("items", part.get("properties", {}).get(step))
        inner = part.get("additionalProperties") if inner is None else inner
        if not isinstance(inner, dict):
            break
        value, part = value[step], inner
    return value, part


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("component.role", components.ROLES),
        ("tensor.type", components.VALUE_TYPES),
        ("storage.dtype", components.DTYPES),
        ("variant.target", tuple(targets.TARGETS)),
        ("variant.format", tuple(targets.FORMATS)),
        ("variant.delegate", (*components.DELEGATES, None)),
        ("variant.precision", components.PRECISIONS),
        ("variant.compute_unit", components.COMPUTE_UNITS),
        ("delegation.basis", components.BASES),
        ("program.task", programs.TASKS),
        ("resample_operation.method", operations.RESAMPLE_METHODS),
        ("sampler.kind", samplers.SAMPLER_KINDS),
        ("sampler.prediction_type", samplers.PREDICTION_TYPES),
        ("table.dtype", programs.TABLE_DTYPES),
        ("tokenizer.kind", tokenizers.TOKENIZER_KINDS),
        ("tokenizer.too_long", tokenizers.TOO_LONG),
    ],
)
def test_words_are_those_of_the_reader(place: str, words: tuple[object, ...]) -> None:
    name, key = place.split(".")
    assert DEFS[name]["properties"][key]["enum"] == list(words)


def test_kinds_and_patterns_are_those_of_the_reader() -> None:
    blends = DEFS["collected"]["additionalProperties"]["properties"]["blend"]["enum"]
    assert blends == [*operations.BLENDS, None]
    kinds = [item["$ref"].rpartition("/")[2] for item in DEFS["operation"]["oneOf"]]
    assert kinds == [f"{op}_operation" for op in operations.OPERATIONS]
    inputs = [item["$ref"].rpartition("/")[2] for item in DEFS["input"]["oneOf"]]
    assert inputs == [f"{kind}_input" for kind in programs.INPUT_KINDS]
    requires = DEFS["variant"]["properties"]["requires"]["properties"]
    assert list(requires) == list(components.RUNTIME_NAMES)
    for name, pattern in {
        "identifier": _json.IDENTIFIER,
        "array_name": operations.ARRAY,
        "version": components.VERSION,
    }.items():
        assert DEFS[name]["pattern"] == f"^{pattern.pattern}$"


def test_bounds_are_those_of_the_text() -> None:
    top = DEFS["version_3"]["properties"]
    most = {key: value.get("maxItems", value.get("maxProperties")) for key, value in top.items()}
    bounds = {
        **{"programs": 16, "components": 32, "samplers": 16, "tokenizers": 8, "tables": 256},
        **{"packs": 64, "sets": 256, "licences": 256, "verification": 10000, "costs": 32},
    }
    assert {key: bound for key, bound in most.items() if bound} == bounds
    assert DEFS["operations"]["maxItems"] == operations.MAX_OPERATIONS == 512
    loop = DEFS["loop_operation"]["properties"]["count"]
    assert (loop["minimum"], loop["maximum"]) == (1, operations.MAX_COUNT)
    assert DEFS["shape"]["items"]["maximum"] == operations.MAX_SIZE
    assert DEFS["number"]["maximum"] == -DEFS["number"]["minimum"] == _json.MAX_FLOAT
    assert DEFS["positive"]["exclusiveMinimum"] == 2**-150
    assert DEFS["path"]["maxLength"] == _json.MAX_PATH
    assert DEFS["file"]["properties"]["bytes"]["maximum"] == _json.MAX_INTEGER
    fps = DEFS["video"]["properties"]["fps"]
    assert (fps["minimum"], fps["maximum"]) == (programs.MIN_FPS, programs.MAX_FPS)
    text = (ROOT / "docs/bundle_format.md").read_text("utf-8")
    row = "| programs, components, samplers, tokenizers, tables, packs | 16, 32, 16, 8, 256, 64 |"
    assert row in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("component", components.Component),
        ("tensor", components.Tensor),
        ("variant", components.Variant),
        ("chip", components.Chip),
        ("file", components.FileRef),
        ("delegation", components.Delegation),
        ("non_delegated", components.NonDelegated),
        ("set", components.VariantSet),
        ("program", programs.Program),
        ("video", programs.VideoSpec),
        ("number_input", programs.NumberInput),
        ("clip_input", programs.ClipInput),
        ("table", programs.Table),
        *((f"{op}_operation", kind) for op, kind in operations._OPERATIONS.items()),
        ("sampler", samplers.Sampler),
        ("schedule", samplers.Schedule),
        ("tokenizer", tokenizers.TokenizerSpec),
        ("source", records.Source),
        ("licence", records.Licence),
        ("verification", records.Verification),
    ],
)
def test_keys_have_the_order_in_which_they_are_written(name: str, kind: type) -> None:
    definition = DEFS[name]
    assert list(definition["properties"]) == definition["required"]
    assert definition["required"] == [item.name for item in fields(kind)]
    assert definition["additionalProperties"] is False


def test_the_text_names_keys_in_that_order() -> None:
    text = (ROOT / "docs/bundle_format.md").read_text("utf-8")
    for heading, name in (
        ("| key | value |\n|---|---|\n| `format`", "version_3"),
        ("| component's key | value |", "component"),
        ("| variant's key | value |", "variant"),
        ("| key | value |\n|---|---|\n| `kind` | `flow_euler`", "sampler"),
        ("| key | value |\n|---|---|\n| `kind` | `wordpiece`", "tokenizer"),
        ("| key | value |\n|---|---|\n| `name` | name, unique", "program"),
    ):
        table = text[text.index(heading) :].split("\n\n")[0]
        rows = [line.split(" | ")[0] for line in table.splitlines()[2:]]
        keys = [key for row in rows for key in re.findall(r"`([a-z_]+)`", row)]
        assert keys == DEFS[name]["required"], name
    for line in text.splitlines():
        if match := re.match(r"\| `([a-z]+)` \| ((?:`[a-z_]+`(?: \(.*?\))?,? ?)+) \|", line):
            name = f"{match[1]}_operation"
            if name in DEFS:
                keys = re.findall(r"`([a-z_]+)`", match[2])
                assert ["op", *keys] == DEFS[name]["required"], name
