"""Strict, bounded reading of the JSON of a manifest.

Whatever the bytes are, the only exception that leaves this module is `BundleError`, and its message
holds the JSON path, the value met and what is allowed. The bounds are those of
docs/bundle_format.md, so that the readers in every language refuse the same documents.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, islice
from typing import NoReturn, TypeAlias, TypeVar, cast

from mvsdk._text import json_fault, quoted
from mvsdk.errors import BundleError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
T = TypeVar("T")
W = TypeVar("W", bound=str)

MAX_MANIFEST_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_VALUES = 2**18
"""Values of a document: its root, and all that lists and objects hold, at any depth."""
MAX_INTEGER = 2**53 - 1
"""Largest integer that survives a reader which keeps numbers as float64."""
MAX_FLOAT = 3.4028234663852886e38
"""Largest float32: schedules and scales are float32 in every runtime."""
MAX_PATH = 255

MAX_QUOTE = 48
"""Printed characters of one foreign text in a message."""
MAX_WHERE = 96
"""Printed characters of a JSON path, or of a list of foreign names, in a message."""

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PATH_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._+-]*[A-Za-z0-9_+-])?")
STEPS = re.compile(r"[1-9][0-9]{0,2}|1000")
TENSOR_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,512}")
SHA256 = re.compile(r"[0-9a-f]{64}")
RESERVED_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows opens as a device, with any suffix and in any folder."""
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SURROGATE = re.compile("[\ud800-\udfff]")
_NEXT_VALUE = re.compile(
    rb'(?:[^"\[{,]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)*+'  # up to there, strings as a whole
    rb"(?:[\[{]\s*+[\]}]|([\[{,])|\Z)",  # an empty container; or what a value follows
    re.DOTALL,
)
"""Matches on and on from the start to the end of any bytes, so that each is looked at once."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Bracket -> 1 or -1 as a signed byte: what the level changes by."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_NO_OUTLINE = bytes(set(range(256)) - set(b'[{]}"'))
_HUGE = 10**4000
"""The first integer of more digits than any reader has to make a number of."""


def to_float32(value: float) -> float:
    """Round to the nearest float32, ties to even.

    Args:
        value: Within `MAX_FLOAT`; beyond it `struct` raises OverflowError.
    """
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def describe(value: object) -> str:
    """Say in a few printable words what a value is, however large or deep it may be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > 1 << 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list | tuple):
        return f"a list of {len(cast('list[object]', value))}"
    if isinstance(value, Mapping):
        return f"an object of {len(cast('Mapping[str, object]', value))} keys"
    return f"of the type {type(value).__name__}"


def quote(text: str) -> str:
    """Spell foreign text in printable characters: about `MAX_QUOTE`, of its start and its end."""
    counted = f" ({len(text)} letters)" if len(text) > MAX_QUOTE else ""
    return quoted(text, MAX_QUOTE) + counted


def shorten(text: str, most: int = MAX_QUOTE) -> str:
    """Leave out the middle of printable text that is longer than `most` characters."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def listed(names: Iterable[str]) -> str:
    """Join printable foreign names, at most `MAX_WHERE` characters of them."""
    return shorten(", ".join(map(shorten, names)), MAX_WHERE)


def has_more_values(payload: bytes, most: int) -> bool:
    """Return whether a JSON text has more values than that, before a parser makes any.

    A value is the root, and each item of a list and each value of an object.

    Args:
        payload: Any bytes; of those that are not JSON the answer means nothing.
        most: At least 1.
    """
    # Of n values in a container each follows its bracket or a comma.
    further = (match for match in _NEXT_VALUE.finditer(payload) if match.lastindex)
    return next(islice(further, most - 1, None), None) is not None


def depth_of(payload: bytes) -> int:
    """Return how many levels a JSON text has, before a parser makes any value.

    Args:
        payload: Any bytes; of those that are not JSON the answer means nothing.
    """
    if b"\\" not in payload:  # then each quote ends or begins a string, and few bytes matter
        payload = payload.translate(None, _NO_OUTLINE)
    steps = _STRING.sub(b"", payload).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def fail(
    path: str, got: str, want: str, rule: str = "D10", *, place: str | None = None
) -> NoReturn:
    """Raise the one-line error of a manifest: where, what was met, what is expected, what next.

    Args:
        path: Where, as a JSON path; empty for the document.
        got: What was met.
        want: What is expected.
        rule: Id of the rule that is broken (docs/bundle_format.md).
        place: JSON path of the value that is at fault, if `path` says more than that.
    """
    where = path or "the document"
    raise BundleError(
        f"manifest.json: {where} is {got}, expected {want}; export the bundle again",
        rule=rule,
        where=path if place is None else place,
    )


def load_json(payload: bytes) -> JsonValue:
    """Parse a manifest's bytes.

    Args:
        payload: UTF-8 JSON without a byte order mark, at most `MAX_MANIFEST_BYTES`.

    Raises:
        BundleError: If the bytes are too many, hold more than `MAX_VALUES` values, are not UTF-8,
            not JSON, nested deeper than `MAX_DEPTH`, or hold a repeated key, NaN, an infinity, an
            integer beyond 2^53 - 1 or half a surrogate pair.
    """
    check_size(payload)
    if depth_of(payload) > MAX_DEPTH:
        fail("", "nested too deeply", f"at most {MAX_DEPTH} levels", "D5")
    if payload.startswith(codecs.BOM_UTF8):
        fail("", "UTF-8 with a byte order mark", "none", "D1")
    try:
        value = _parse_any_integer(payload)
    except StrictJsonError as exc:
        fail(*exc.args, place="")
    except UnicodeDecodeError as exc:
        raise BundleError(
            f"manifest.json is not UTF-8 at byte {exc.start}; export it again",
            rule="D1",
            where="",
        ) from exc
    except json.JSONDecodeError as exc:
        raise BundleError(
            f"manifest.json is not JSON: {json_fault(exc)}; download or export the bundle again",
            rule="D2",
            where="",
        ) from exc
    return check_json(value)


def _parse_any_integer(payload: bytes) -> object:
    """Parse JSON, also where Python refuses an integer for its digits.

    It does so as soon as it meets one, and the rest may break a rule that goes before.
    """
    try:
        return parse_strictly(payload)
    except (StrictJsonError, UnicodeDecodeError, json.JSONDecodeError):
        raise
    except ValueError:
        return parse_strictly(payload, _integer)


def _integer(digits: str) -> int:
    """Return an integer, or one of as many digits that is refused likewise, at most `_HUGE`."""
    count = len(digits.lstrip("-"))
    return int(digits) if count < 640 else 10 ** min(count - 1, 4000)  # Python reads 640 anywhere


class StrictJsonError(ValueError):
    """JSON that readers take in different ways: what, what was met, what is allowed, the rule."""


def parse_strictly(payload: bytes, parse_int: Callable[[str], int] | None = None) -> object:
    """Parse JSON in which every key of an object is given once, and every number is one.

    Args:
        payload: UTF-8 without a byte order mark.
        parse_int: What makes integers; None for `int`.

    Raises:
        StrictJsonError: If a key is given twice, or a number is NaN or an infinity by name.
        ValueError: If the bytes are not UTF-8, not JSON, or hold an oversized integer.
        RecursionError: If the nesting is too deep for Python.
    """
    return json.loads(
        payload.decode("utf-8"),
        object_pairs_hook=_unique,
        parse_constant=_refuse_constant,
        parse_int=parse_int,
    )


def check_size(payload: bytes, form: str = "", rule: str | None = None) -> None:
    """Check the bytes of a manifest, and how many values they hold.

    Args:
        payload: The bytes.
        form: Ends what an error says of them, such as " in canonical form".
        rule: That a refusal names, where it is neither D1 nor D6.

    Raises:
        BundleError: If they are more than `MAX_MANIFEST_BYTES`, or hold more than `MAX_VALUES`.
    """
    if len(payload) > MAX_MANIFEST_BYTES:
        fail("", f"{len(payload)} bytes{form}", f"at most {MAX_MANIFEST_BYTES}", rule or "D1")
    if has_more_values(payload, MAX_VALUES):
        fail("", f"of more than {MAX_VALUES} values{form}", "so many or fewer", rule or "D6")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise StrictJsonError(
                f"the key {describe(name)}", "given twice in one object", "each key once", "D3"
            )
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise StrictJsonError("a number", name, "finite numbers only", "D2")


def check_json(value: object) -> JsonValue:
    """Check that a tree is plain JSON within the bounds.

    Raises:
        BundleError: See `load_json`; also for values that JSON cannot hold (numpy scalars, sets).
    """
    if type(value) in (dict, list):
        _check_below(value, ())
    elif fault := _leaf_fault(value):
        fail("", describe(value), *fault)
    return cast("JsonValue", value)


def _check_below(item: object, labels: tuple[str | int, ...]) -> None:
    """Check what a list or an object holds; `labels` lead to it from the root."""
    if len(labels) >= MAX_DEPTH:
        most = f"at most {MAX_DEPTH} levels"
        fail(_path(labels), "nested too deeply", most, "D5", place="")
    for label, child in _children(item, labels):
        if type(child) in (dict, list):
            _check_below(child, (*labels, label))
        elif fault := _leaf_fault(child):
            path = _path((*labels, label))
            place = "" if type(child) is int and abs(child) >= _HUGE else path
            fail(path, describe(child), *fault, place=place)


def _children(item: object, labels: tuple[str | int, ...]) -> Iterable[tuple[str | int, object]]:
    if type(item) is list:
        return enumerate(cast("list[object]", item))
    entries = cast("dict[str, object]", item)
    for key in entries:
        if type(key) is not str or _leaf_fault(key):
            place = _path(labels)
            where = f"a key of {place or 'the document'}"
            fail(where, describe(key), "text without surrogates", "D4", place=place)
    return entries.items()


def _leaf_fault(value: object) -> tuple[str, str] | None:
    """Say what a scalar should have been, and by which rule; None if it is right."""
    if type(value) is str:
        return ("text without unpaired surrogates", "D4") if SURROGATE.search(value) else None
    if type(value) is int:
        return ("an integer within 2^53 - 1", "D7") if abs(value) > MAX_INTEGER else None
    if type(value) is float:
        return None if math.isfinite(value) else ("a finite number", "D7")
    return None if value is None or type(value) is bool else ("a JSON value", "D2")


def _path(labels: Iterable[str | int]) -> str:
    return reduce(_join, labels, "")


def _join(path: str, name: str | int) -> str:
    """Return the path of a value, which stays short however long and many the keys are."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    label = shorten(name) if IDENTIFIER.fullmatch(name) else quote(name)
    return shorten(f"{path}.{label}" if path else label, MAX_WHERE)


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a checked JSON tree and its path; every accessor returns one type or raises."""

    value: object
    path: str = ""

    def fail(self, want: str, rule: str = "D10") -> NoReturn:
        """Raise a `BundleError` that names this value's path."""
        fail(self.path, describe(self.value), want, rule)

    def fields(self, *names: str) -> dict[str, Node]:
        """Read an object that has exactly these keys."""
        value = self._dict()
        for name in names:
            if name not in value:
                fail(_join(self.path, name), "missing", "every key of the format", "D9")
        if len(value) > len(names):
            unknown = next(name for name in value if name not in names)
            fail(
                f"{self.path or 'the document'} key {describe(unknown)}",
                "unknown",
                ", ".join(names),
                "D9",
                place=self.path,
            )
        return {name: Node(value[name], _join(self.path, name)) for name in names}

    def entries(
        self,
        keys: re.Pattern[str] = IDENTIFIER,
        *,
        most: int,
        least: int = 0,
        names: str = "D10",
        counts: str = "D12",
    ) -> dict[str, Node]:
        """Read an object of `least` to `most` entries, whose keys match a pattern.

        Args:
            keys: The pattern.
            most: Entries.
            least: Entries.
            names: Rule that a key breaks which does not match.
            counts: Rule that too few or too many entries break.
        """
        value = self._dict()
        if not least <= len(value) <= most:
            self.fail(f"{least} to {most} keys", counts)
        for name in value:
            if not keys.fullmatch(name):
                where = f"{self.path} key {describe(name)}"
                fail(where, "not allowed", f"keys like {keys.pattern}", names, place=self.path)
        return {name: Node(child, _join(self.path, name)) for name, child in value.items()}

    def items(self, *, most: int, least: int = 0, counts: str = "D12") -> list[Node]:
        """Read a list of `least` to `most` values; others break the rule `counts`."""
        value = self._list()
        if not least <= len(value) <= most:
            self.fail(f"{least} to {most} items", counts)
        return [Node(child, _join(self.path, i)) for i, child in enumerate(value)]

    def _dict(self) -> dict[str, object]:
        value = self.value
        if not isinstance(value, dict):
            self.fail("an object")
        return cast("dict[str, object]", value)

    def _list(self) -> list[object]:
        value = self.value
        if not isinstance(value, list):
            self.fail("a list")
        return cast("list[object]", value)

    def integer(self, least: int = 0, most: int = MAX_INTEGER, rule: str = "D10") -> int:
        """Read an integer within [least, most]; a bool or 1.0 is not one."""
        if type(self.value) is not int or not least <= self.value <= most:
            self.fail(f"an integer from {least} to {most}", rule)
        return self.value

    def number(self, least: float = -MAX_FLOAT, most: float = MAX_FLOAT) -> float:
        """Read a number within [least, most] and the range of float32; integers become floats."""
        value = self.value
        if type(value) is not int and type(value) is not float:
            self.fail(f"a number from {least:g} to {most:g}")
        if abs(value) > MAX_FLOAT:
            self.fail("a number within the range of float32", "D7")
        if not least <= value <= most:
            self.fail(f"a number from {least:g} to {most:g}")
        return float(value)

    def positive(self, rule: str = "D11") -> float:
        """Read a finite number above zero, also when it is rounded to float32."""
        value = self.number()
        if to_float32(value) <= 0.0:
            self.fail("a number above 0 in float32", rule)
        return value

    def boolean(self) -> bool:
        """Read true or false."""
        if type(self.value) is not bool:
            self.fail("true or false")
        return self.value

    def text(self, *, least: int = 1, most: int = 4096) -> str:
        """Read one line of printable text of `least` to `most` letters."""
        value = self.value
        if type(value) is not str or not least <= len(value) <= most or UNPRINTABLE.search(value):
            self.fail(f"one line of text, {least} to {most} letters")
        return value

    def identifier(self) -> str:
        """Read a name made of letters, digits, dot, dash and underscore."""
        if type(self.value) is not str or not IDENTIFIER.fullmatch(self.value):
            self.fail("a name of 1 to 128 letters, digits, '.', '-' or '_'")
        return self.value

    def relative_path(self) -> str:
        """Read a file path that stays inside the bundle on every operating system."""
        value = self.value
        if type(value) is not str or not is_safe_path(value):
            self.fail("a relative path of plain names, such as components/unet/model.onnx", "F2")
        return value

    def sha256(self) -> str:
        """Read a SHA-256 digest."""
        if type(self.value) is not str or not SHA256.fullmatch(self.value):
            self.fail("64 lower-case hexadecimal digits")
        return self.value

    def choice(self, allowed: tuple[W, ...], rule: str = "D10") -> W:
        """Read one of the allowed words."""
        value = self.value
        found = next((word for word in allowed if type(value) is str and value == word), None)
        if found is None:
            self.fail("one of " + ", ".join(allowed), rule)
        return found

    def optional(self, read: Callable[[Node], T]) -> T | None:
        """Read null as None, anything else with `read`."""
        return None if self.value is None else read(self)


def is_safe_path(path: str) -> bool:
    """Return whether a path is relative, portable and without a way out of its folder.

    Refuses by construction: empty, absolute, `..`, `.`, hidden names, backslashes, drive letters,
    alternate streams, trailing dots or spaces, control characters and Windows device names.
    """
    return len(path) <= MAX_PATH and all(
        PATH_NAME.fullmatch(name) and not RESERVED_NAME.fullmatch(name) for name in path.split("/")
    )
