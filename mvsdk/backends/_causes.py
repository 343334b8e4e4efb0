"""Causes of what runtimes report, and next steps, by the catalogue that all languages share.

`errors.json` beside this module is that catalogue; tests/golden/errors.json is a copy of it. Each
entry has

    id      name, unique
    format  whose runtime says so; null: any
    match   what tells it, each enough: a `number`; a `text` that is in the message; a `pattern`,
            a regular expression that finds something in it; the `rule` that a bundle breaks; the
            `reason` why a set does not run (docs/bundle_format.md, C5)
    cause   what went wrong
    next    what to do about it

The first entry that matches counts: a cause stands before what its callers report of it. A number
is given by the runtime, or stands in the message where `number`, a regular expression that ignores
case, finds it: decimal, also with leading zeros, or hexadecimal with 0x, of so few digits that 63
bits hold it, as longer ones are no code. Regular expressions mean the same in Python, Java and
Swift (ICU).

Reference:
    QNN's error headers (QnnCommon.h, QnnContext.h, QnnDevice.h); ExecuTorch, runtime/core/error.h;
    Apple's MLModelError.Code; messages as met in the issues of the runtimes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvsdk.manifest import Format

CATALOGUE = "errors.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """An entry of the catalogue."""

    id: str
    format: str | None
    numbers: tuple[int, ...]
    texts: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    cause: str
    next: str

    def number_in(self, numbers: Collection[int]) -> int | None:
        """Return which of these numbers tells the cause; None if none does."""
        return next((number for number in self.numbers if number in numbers), None)

    def is_told(self, message: str) -> bool:
        """Return whether the words of a message tell the cause."""
        texts = any(text in message for text in self.texts)
        return texts or any(pattern.search(message) for pattern in self.patterns)


@cache
def catalogue() -> tuple[Cause, ...]:
    """Return all entries, in their order."""
    return tuple(_entry(item) for item in _document()["causes"])


def find_cause(format: Format, message: str) -> tuple[str, str] | None:
    """Return what a runtime means by a message.

    Args:
        format: Of what was loaded or run.
        message: What it said, and what it printed, of any number of lines.

    Returns:
        The cause, with the number that told it, and the next step; None for something new.
    """
    numbers = _numbers(message)
    for entry in catalogue():
        if entry.format not in (None, format):
            continue
        number = entry.number_in(numbers)
        if number is not None:
            return f"error {number}, {entry.cause}", entry.next
        if entry.is_told(message):
            # A name stands for its number, which documents of the runtime are searched by.
            named = f"error {entry.numbers[0]}, " if entry.numbers else ""
            return f"{named}{entry.cause}", entry.next
    return None


def next_step(identifier: str) -> str:
    """Return the next step of an entry.

    Raises:
        KeyError: If there is no such entry.
    """
    for entry in catalogue():
        if entry.id == identifier:
            return entry.next
    raise KeyError(identifier)


def _numbers(message: str) -> set[int]:
    found = re.findall(_document()["number"], message, re.IGNORECASE)
    # Not base 0, which refuses the leading zeros of a decimal number.
    return {int(code, 16 if code[:2] in ("0x", "0X") else 10) for code in found}


@cache
def _document() -> dict[str, Any]:
    file = resources.files("mvsdk.backends").joinpath(CATALOGUE)
    return json.loads(file.read_text(encoding="utf-8"))


def _entry(item: dict[str, Any]) -> Cause:
    def given(key: str) -> list[Any]:
        return [match[key] for match in item["match"] if key in match]

    return Cause(
        id=item["id"],
        format=item["format"],
        numbers=tuple(given("number")),
        texts=tuple(given("text")),
        patterns=tuple(map(re.compile, given("pattern"))),
        cause=item["cause"],
        next=item["next"],
    )
