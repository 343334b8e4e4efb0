"""The document of a manifest: syntax, shape (docs/bundle.schema.json) and canonical form."""

import json
import re
from collections.abc import Iterator
from functools import reduce
from itertools import accumulate
from math import isfinite, isnan, nan
from operator import getitem
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

Parts = dict[str, Any]
SCHEMA = json.loads((Path(__file__).parents[3] / "docs/bundle.schema.json").read_text("utf-8"))
COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
RULES = {"required": "D9", "additionalProperties": "D9"} | dict.fromkeys(COUNTS, "D12")


class Refused(Exception):
    """What breaks a rule, and where; `reasons` are those of each set (C5)."""

    def __init__(self, rule: str, where: str, reasons: Any = None) -> None:
        super().__init__(f"{where or 'manifest.json'} breaks a rule [{rule}]")
        self.rule, self.where, self.reasons = rule, where, reasons


def need(good: Any, rule: str, where: str) -> None:
    """Refuses what is not good."""
    if not good:
        raise Refused(rule, where)


def every(operations: list[Parts]) -> Iterator[Parts]:
    """Operations, and those within them."""
    for op in operations:
        yield op
        yield from every(op.get("operations", []))


class Whole(int):
    """A whole number that is written with fraction or exponent, which is no integer (D7)."""


def number(text: str) -> float:
    """A number that is written with fraction or exponent."""
    x = float(text)
    return Whole(x) if x.is_integer() and abs(x) < 2**53 else x


def unique(pairs: list[tuple[str, Any]]) -> Parts:
    """An object without a key that is there twice (D3)."""
    need(len(dict(pairs)) == len(pairs), "D3", "")
    return dict(pairs)


def measure(text: str) -> tuple[int, int]:
    """How deep a document is, and how many values it has (D5, D6)."""
    outline = re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"', '""', text, flags=re.DOTALL)
    steps = [1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", outline)]
    parents = re.findall(r"[\[{](?=[ \t\r\n]*[^ \t\r\n\]}])", outline)
    return max(accumulate(steps), default=0), 1 + outline.count(",") + len(parents)


def parse(payload: bytes) -> Any:
    """The document of a manifest (D1 to D7)."""
    text = payload.decode(errors="ignore")
    need(text.encode() == payload and len(payload) <= 4 << 20 and text[:1] != "\ufeff", "D1", "")
    depth, values = measure(text)
    need(depth <= 32, "D5", "")
    need(values <= 262144, "D6", "")
    try:
        document = json.loads(
            text,
            object_pairs_hook=unique,
            parse_float=number,
            parse_int=lambda digits: int(digits) if len(digits.lstrip("-")) <= 4000 else nan,
            parse_constant=lambda _: need(False, "D2", ""),
        )
    except ValueError:
        raise Refused("D2", "") from None
    walk(document, "")
    return document


def walk(value: Any, at: str) -> None:
    """Looks for halves of surrogate pairs and for numbers that are too large (D4, D7)."""
    if isinstance(value, str):
        need(not re.search("[\ud800-\udfff]", value), "D4", at)
    elif isinstance(value, float):
        need(isfinite(value), "D7", "" if isnan(value) else at)
    elif isinstance(value, int):
        need(abs(value) < 2**53, "D7", at)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            walk(item, f"{at}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            walk(key, at)
            walk(item, f"{at}.{key}".removeprefix("."))


def matches(_: Any, pattern: str, text: Any, schema: Parts) -> Iterator[ValidationError]:
    """The keyword `pattern`, whose `$` is the end and not a line feed before it."""
    if isinstance(text, str) and not re.search(pattern.replace("$", r"\Z"), text):
        yield ValidationError("")


def one_kind(validator: Any, kinds: Any, value: Any, schema: Parts) -> Iterator[ValidationError]:
    """The keyword `oneOf`: what is wrong with the kind that an object says it is."""
    first: ValidationError | None = None
    for kind in kinds:
        errors = validator.descend(value, kind)
        first = next(errors, None)
        if not first or first.validator != "const" or len(first.path) > 1:
            yield from [first] if first else []
            return (yield from errors)
    yield from [first] if first else []


def referred(validator: Any, ref: str, value: Any, _: Parts) -> Iterator[ValidationError]:
    """The keyword `$ref`, whose place is always in the schema itself."""
    return validator.descend(value, reduce(getitem, ref.split("/")[1:], SCHEMA))


def closed(validator: Any, more: Any, value: Any, schema: Parts) -> Iterator[ValidationError]:
    """The keyword `additionalProperties`, which brings keys in canonical order."""
    if isinstance(value, dict):
        keys = [key for key in schema.get("required", ()) if key in value]
        steps = schema.get("propertyNames") == {"$ref": "#/$defs/steps"}
        rest = sorted(value.keys() - keys, key=lambda key: (len(key) if steps else 0, key))
        ordered = {key: value[key] for key in keys + rest}
        value.clear()
        value.update(ordered)
    yield from CLOSED(validator, more, value, schema)


CLOSED = Draft202012Validator.VALIDATORS["additionalProperties"]
TYPES = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, x: type(x) is int)
HOOKS = {"$ref": referred, "pattern": matches, "oneOf": one_kind, "additionalProperties": closed}
VALIDATOR = extend(Draft202012Validator, HOOKS, type_checker=TYPES)(SCHEMA)


def check(document: Any) -> None:
    """Refuses what has not the shape that the schema says; puts keys in canonical order."""
    errors = VALIDATOR.iter_errors(document)
    error = min(errors, key=lambda e: (len(e.path), e.validator not in COUNTS), default=None)
    if error:
        steps = list(error.path)
        if error.validator == "required":
            steps.append(next(key for key in error.validator_value if key not in error.instance))
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
        rule = error.schema.get("rule", RULES.get(error.validator, "D10"))
        raise Refused(rule, where.removeprefix("."))


def write(manifest: Parts, indent: int | None = 2) -> bytes:
    """The canonical form of what `read` gave."""
    separators = (",", ": " if indent else ":")
    made = json.dumps(manifest, ensure_ascii=False, indent=indent, separators=separators)
    long = indent and len(made.encode()) >= 4 << 20
    return write(manifest, None) if long else f"{made}\n".encode()
