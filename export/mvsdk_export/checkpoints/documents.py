"""Strict, bounded reading of the JSON files of a model folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

from mvsdk._json import UNPRINTABLE, describe, has_more_values, quote
from mvsdk._text import json_fault, quoted, reason_of
from mvsdk_export.errors import CheckpointError

MAX_BYTES = 1 << 20
"""Largest configuration file that is read."""
MAX_VALUES = 1 << 19
"""Values of a file: a header has about eight for a tensor, a network some thousands of tensors."""
MAX_DEPTH = 16
MAX_INTEGER = 2**53 - 1

REPAIR = "correct the file, or make or download the model folder again"


class _Fault(ValueError):
    """What a JSON text holds and must not."""


@dataclass(frozen=True, slots=True)
class Document:
    """The object at the root of a JSON file."""

    path: Path
    values: Mapping[str, object]

    def fail(self, key: str, want: str) -> NoReturn:
        """Raise the one-line error of a value: file, key, value met, what is allowed."""
        got = describe(self.values[key]) if key in self.values else "missing"
        raise CheckpointError(f"{quoted(self.path)}: {key} is {got}, expected {want}; {REPAIR}")

    def check_keys(self, required: Sequence[str], optional: Sequence[str] = ()) -> None:
        """Check that every required key is there and no unknown one."""
        for key in required:
            if key not in self.values:
                self.fail(key, f"every one of {', '.join(required)}")
        known = (*required, *optional)
        for key in self.values:
            if key not in known:
                raise CheckpointError(
                    f"{quoted(self.path)}: key {describe(key)} is unknown, known: "
                    f"{', '.join(known)}; {REPAIR}"
                )

    def check_fixed(self, values: Mapping[str, object]) -> None:
        """Check keys that may hold one value only; a key that is not there is not checked."""
        for key, value in values.items():
            if key in self.values and not _are_equal(self.values[key], value):
                self.fail(key, _spell(value))

    def check_class(self, key: str, supported: object) -> None:
        """Check a key that says what the file is of: another kind is no fault of the file.

        Args:
            key: Need not be there.
            supported: Its one value, a word or a list of one.

        Raises:
            CheckpointError: If it is another; with a line that does not ask to correct the file.
        """
        value = self.values.get(key, supported)
        if _is_words(value) and value != supported:
            raise unsupported(f"{quoted(self.path)}", value, [supported])
        self.check_fixed({key: supported})

    def integer(self, key: str, least: int, most: int) -> int:
        """Read an integer within [least, most]; true and 1.0 are none."""
        value = self.values.get(key)
        if type(value) is not int or not least <= value <= most:
            self.fail(key, f"an integer from {least} to {most}")
        return value

    def number(self, key: str, *, above: float, most: float) -> float:
        """Read a number within (above, most]."""
        value = self.values.get(key)
        if type(value) not in (int, float) or not above < cast("float", value) <= most:
            self.fail(key, f"a number above {above:g}, at most {most:g}")
        return float(cast("float", value))

    def boolean(self, key: str, default: bool) -> bool:
        """Read true or false; the default if the key is absent."""
        value = self.values.get(key, default)
        if type(value) is not bool:
            self.fail(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None, *, least: int = 1, most: int = 256) -> str:
        """Read one short line of printable text; the default if the key is absent."""
        value = self.values.get(key, default)
        if type(value) is not str or not least <= len(value) <= most or UNPRINTABLE.search(value):
            self.fail(key, f"one line of {least} to {most} letters")
        return value

    def choice(self, key: str, known: Sequence[str]) -> str:
        """Read one of the known words."""
        value = self.values.get(key)
        if type(value) is not str or value not in known:
            self.fail(key, f"one of {', '.join(known)}")
        return value


def unsupported(what: str, value: object, supported: Iterable[object]) -> CheckpointError:
    """Return the error for a file that is right, of a model that this package does not know.

    Args:
        what: Begins the message.
        value: What was met: a name, or a list of names.
        supported: What is known instead, of the same kind.
    """
    return CheckpointError(
        f"{what} is of the class {quote(_name(value))}, which is not supported; supported are "
        f"{', '.join(map(_name, supported))}; choose such a model"
    )


def read_document(
    path: Path, *, most_bytes: int = MAX_BYTES, most_values: int = MAX_VALUES
) -> Document:
    """Read a JSON file whose root is an object.

    Args:
        path: The file.
        most_bytes: Size above which it is refused unread.
        most_values: Number of values above which it is refused before any is made.

    Raises:
        CheckpointError: If it is too large, not UTF-8, not JSON, no object, nested deeper than
            `MAX_DEPTH`, or holds a repeated key, NaN, an infinity or an integer beyond 2^53 - 1.
    """
    payload = _read(path, most_bytes)
    return Document(path, parse_object(payload, quoted(path), most_values=most_values))


def parse_object(payload: bytes, where: str, *, most_values: int = MAX_VALUES) -> dict[str, object]:
    """Parse bytes that must be a JSON object; `where` begins the error.

    Raises:
        CheckpointError: As `read_document` does.
    """
    if has_more_values(payload, most_values):
        raise CheckpointError(
            f"{where} holds more than {most_values} values, the most that is read; {REPAIR}"
        )
    try:
        value: object = json.loads(
            payload.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        _check_values(value)
    except UnicodeDecodeError as exc:
        raise CheckpointError(f"{where} is not UTF-8 at byte {exc.start}; {REPAIR}") from exc
    except json.JSONDecodeError as exc:
        raise CheckpointError(f"{where} is not JSON: {json_fault(exc)}; {REPAIR}") from exc
    except RecursionError as exc:
        raise CheckpointError(f"{where} is nested too deeply; {REPAIR}") from exc
    except _Fault as exc:
        raise CheckpointError(f"{where} holds {exc}; {REPAIR}") from exc
    except ValueError as exc:  # Python refuses to read integers of more than 4300 digits
        raise CheckpointError(f"{where} holds an oversized number; {REPAIR}") from exc
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} is {describe(value)}, expected a JSON object; {REPAIR}")
    return cast("dict[str, object]", value)


def _are_equal(value: object, wanted: object) -> bool:
    """Compare JSON values; to Python true is 1, to JSON it is not."""
    if isinstance(wanted, list) and isinstance(value, list):
        items = cast("list[object]", value)
        return len(items) == len(wanted) and all(map(_are_equal, items, wanted))
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _is_words(value: object) -> bool:
    """Return whether a value is a word, or a list of words."""
    words = cast("list[object]", value) if isinstance(value, list) else [value]
    return bool(words) and all(type(word) is str for word in words)


def _name(value: object) -> str:
    return ".".join(map(str, value)) if isinstance(value, list) else str(value)


def _spell(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | bool) or value is None else f"{value!r}"


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            payload = file.read(most_bytes + 1)
    except OSError as exc:
        reason = reason_of(exc)
        raise CheckpointError(f"{quoted(path)} cannot be read: {reason}") from exc
    if len(payload) > most_bytes:
        raise CheckpointError(
            f"{quoted(path)} has more than {most_bytes} bytes, the most that is read; {REPAIR}"
        )
    return payload


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            msg = f"the key {describe(key)} twice"
            raise _Fault(msg)
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    msg = f"the number {name}, which is not finite"
    raise _Fault(msg)


def _check_values(value: object, depth: int = 0) -> None:
    """Check depth and numbers; no deeper than the depth that is allowed."""
    if depth > MAX_DEPTH:
        msg = f"more than {MAX_DEPTH} levels of nesting"
        raise _Fault(msg)
    if isinstance(value, float) and not math.isfinite(value):
        msg = "a number that is not finite"
        raise _Fault(msg)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        msg = "an integer beyond 2^53 - 1"
        raise _Fault(msg)
    for child in _children(value):
        _check_values(child, depth + 1)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()
