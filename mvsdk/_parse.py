"""Strict, bounded reading of the JSON of a manifest.

Whatever the bytes are, the only exception that leaves this module is `BundleError`, and its message
holds the JSON path, the value met and what is allowed. The bounds are those of
docs/bundle_format.md, so that the readers in every language refuse the same documents.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import NoReturn, TypeAlias, TypeVar, cast

from mvsdk._text import quoted
from mvsdk.errors import BundleError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
T = TypeVar("T")

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


def fail(path: str, got: str, want: str) -> NoReturn:
    """Raise the one-line error of a manifest: where, what was met, what is allowed, what next."""
    where = path or "the document"
    raise BundleError(f"manifest.json: {where} is {got}, want {want}; export the bundle again")


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
    try:
        value: object = json.loads(
            payload.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as exc:
        raise BundleError(
            f"manifest.json is not UTF-8 at byte {exc.start}; export it again"
        ) from exc
    except RecursionError as exc:
        raise BundleError(
            f"manifest.json is nested too deeply, at most {MAX_DEPTH} levels are allowed; "
            "export the bundle again"
        ) from exc
    except json.JSONDecodeError as exc:
        raise BundleError(
            f"manifest.json is not JSON: {exc.msg.lower()} at line {exc.lineno} "
            f"column {exc.colno}; download or export the bundle again"
        ) from exc
    except ValueError as exc:  # Python refuses to read integers of more than 4300 digits
        raise BundleError("manifest.json holds an oversized number; export it again") from exc
    return check_json(value)


def check_size(payload: bytes, form: str = "") -> None:
    """Check the bytes of a manifest, and how many values they hold.

    Args:
        payload: The bytes.
        form: Ends what an error says of them, such as " in canonical form".

    Raises:
        BundleError: If they are more than `MAX_MANIFEST_BYTES`, or hold more than `MAX_VALUES`.
    """
    if len(payload) > MAX_MANIFEST_BYTES:
        fail("", f"{len(payload)} bytes{form}", f"at most {MAX_MANIFEST_BYTES}")
    if has_more_values(payload, MAX_VALUES):
        fail("", f"of more than {MAX_VALUES} values{form}", "so many or fewer")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            fail(f"the key {describe(name)}", "given twice in one object", "each key once")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    fail("a number", name, "finite numbers only")


def check_json(value: object) -> JsonValue:
    """Check that a tree is plain JSON within the bounds.

    Raises:
        BundleError: See `load_json`; also for values that JSON cannot hold (numpy scalars, sets).
    """
    if type(value) in (dict, list):
        _check_below(value, ())
    elif want := _leaf_fault(value):
        fail("", describe(value), want)
    return cast("JsonValue", value)


def _check_below(item: object, labels: tuple[str | int, ...]) -> None:
    """Check what a list or an object holds; `labels` lead to it from the root."""
    if len(labels) >= MAX_DEPTH:
        fail(_path(labels), "nested too deeply", f"at most {MAX_DEPTH} levels")
    for label, child in _children(item, labels):
        if type(child) in (dict, list):
            _check_below(child, (*labels, label))
        elif want := _leaf_fault(child):
            fail(_path((*labels, label)), describe(child), want)


def _children(item: object, labels: tuple[str | int, ...]) -> Iterable[tuple[str | int, object]]:
    if type(item) is list:
        return enumerate(cast("list[object]", item))
    entries = cast("dict[str, object]", item)
    for key in entries:
        if type(key) is not str or _leaf_fault(key):
            where = _path(labels) or "the document"
            fail(f"a key of {where}", describe(key), "text without surrogates")
    return entries.items()


def _leaf_fault(value: object) -> str | None:
    """Say what a scalar should have been; None if it is right."""
    if type(value) is str:
        return "text without unpaired surrogates" if SURROGATE.search(value) else None
    if type(value) is int:
        return "an integer within 2^53 - 1" if abs(value) > MAX_INTEGER else None
    if type(value) is float:
        return None if math.isfinite(value) else "a finite number"
    return None if value is None or type(value) is bool else "a JSON value"


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

    def fail(self, want: str) -> NoReturn:
        """Raise a `BundleError` that names this value's path."""
        fail(self.path, describe(self.value), want)

    def fields(self, *names: str) -> dict[str, Node]:
        """Read an object that has exactly these keys."""
        value = self._dict()
        for name in names:
            if name not in value:
                fail(_join(self.path, name), "missing", "every key of the format")
        if len(value) > len(names):
            unknown = next(name for name in value if name not in names)
            fail(
                f"{self.path or 'the document'} key {describe(unknown)}",
                "unknown",
                ", ".join(names),
            )
        return {name: Node(value[name], _join(self.path, name)) for name in names}

    def entries(
        self, keys: re.Pattern[str] = IDENTIFIER, *, most: int, least: int = 0
    ) -> dict[str, Node]:
        """Read an object of `least` to `most` entries, whose keys match a pattern."""
        value = self._dict()
        if not least <= len(value) <= most:
            self.fail(f"{least} to {most} keys")
        for name in value:
            if not keys.fullmatch(name):
                fail(
                    f"{self.path} key {describe(name)}", "not allowed", f"keys like {keys.pattern}"
                )
        return {name: Node(child, _join(self.path, name)) for name, child in value.items()}

    def items(self, *, most: int, least: int = 0) -> list[Node]:
        """Read a list of `least` to `most` values."""
        value = self._list()
        if not least <= len(value) <= most:
            self.fail(f"{least} to {most} items")
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

    def integer(self, least: int = 0, most: int = MAX_INTEGER) -> int:
        """Read an integer within [least, most]; a bool or 1.0 is not one."""
        if type(self.value) is not int or not least <= self.value <= most:
            self.fail(f"an integer from {least} to {most}")
        return self.value

    def number(self, least: float = -MAX_FLOAT, most: float = MAX_FLOAT) -> float:
        """Read a finite number within [least, most]; integers become floats."""
        if type(self.value) not in (int, float) or not least <= cast("float", self.value) <= most:
            self.fail(f"a number from {least:g} to {most:g}")
        return float(cast("float", self.value))

    def positive(self) -> float:
        """Read a finite number above zero, also when it is rounded to float32."""
        value = self.number()
        if to_float32(value) <= 0.0:
            self.fail("a number above 0 in float32")
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
            self.fail("a relative path of plain names, such as components/unet/model.onnx")
        return value

    def sha256(self) -> str:
        """Read a SHA-256 digest."""
        if type(self.value) is not str or not SHA256.fullmatch(self.value):
            self.fail("64 lower-case hexadecimal digits")
        return self.value

    def choice(self, allowed: tuple[T, ...]) -> T:
        """Read one of the allowed words."""
        found = [word for word in allowed if type(self.value) is str and self.value == word]
        if not found:
            self.fail("one of " + ", ".join(map(str, allowed)))
        return found[0]

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
