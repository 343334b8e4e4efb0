"""Checks of what callers pass: a wrong type or value is one line that says what is allowed.

Every public function and method of `mvsdk` looks at its arguments with these, so that nothing but
an `InputError` tells of a mistake of the caller's. Numbers of numpy are numbers.
"""

from __future__ import annotations

import numbers
import operator
import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from mvsdk.errors import InputError

T = TypeVar("T")

_MOST_LETTERS = 60
_BIG = 1 << 128


def shown(value: object) -> str:
    """Return a value in one short printable line, however large, deep or broken it is."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _BIG:
        return f"an integer of {value.bit_length()} bits"
    brief = reprlib.Repr()
    brief.maxother = brief.maxstring = _MOST_LETTERS
    try:
        dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
        if dtype is not None and shape:
            return f"an array of {dtype} {shape}"
        words = " ".join(brief.repr(value).split())
    except Exception:  # a value whose own repr is broken is still to be named
        return f"of the type {type(value).__name__}"
    text = "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in words)
    return text if len(text) <= 2 * _MOST_LETTERS else f"{text[: 2 * _MOST_LETTERS]}..."


def check_text(name: str, value: object) -> str:
    """Return a text.

    Raises:
        InputError: If it is none.
    """
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}; allowed: text; pass a str")
    return value


def check_choice(name: str, value: object, allowed: Iterable[T]) -> T:
    """Return one of several words.

    Raises:
        InputError: If it is another.
    """
    words = tuple(allowed)
    for word in words:
        if isinstance(value, str) and value == word:
            return word
    raise InputError(f"{name} is {shown(value)}; allowed: {', '.join(map(str, words))}")


def check_flag(name: str, value: object) -> bool:
    """Return a truth value; a word such as "no" is none, though Python takes it for true.

    Raises:
        InputError: If it is neither True nor False.
    """
    if isinstance(value, bool):
        return value
    if type(value).__name__ in ("bool", "bool_") and type(value).__module__ == "numpy":
        return bool(value)
    raise InputError(f"{name} is {shown(value)}; allowed: True or False")


def check_path(name: str, value: object, *, example: str) -> Path:
    """Return a path.

    Args:
        name: What messages call it.
        value: A str, or a path-like object that stands for one.
        example: A value that is right.

    Raises:
        InputError: If it is none; bytes are none either.
    """
    try:
        text = os.fspath(cast("str", value))
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise InputError(
            f"{name} is {shown(value)}; allowed: a str or a path-like object of one; "
            f"pass a path such as {example!r}"
        )
    return Path(text)


def check_whole_number(
    name: str, value: object, *, low: int, high: int, allowed: str | None = None
) -> int:
    """Return a whole number.

    Args:
        name: What messages call it.
        value: An int, or what counts as one, such as those of numpy.
        low: The least that is allowed.
        high: The most that is allowed.
        allowed: What messages say of the range; None names its ends.

    Raises:
        InputError: If it is no whole number, or out of range.
    """
    allowed = allowed or f"whole numbers from {low} to {high}"
    try:
        number = operator.index(cast("Any", value))
    except TypeError as exc:
        raise InputError(f"{name} is {shown(value)}; allowed: {allowed}; pass an int") from exc
    if not low <= number <= high:
        raise InputError(f"{name} is {shown(number)}; allowed: {allowed}")
    return number


def check_number(name: str, value: object, *, low: float, high: float) -> float:
    """Return a number.

    Args:
        name: What messages call it.
        value: An int or float, or what counts as one, such as those of numpy; no text.
        low: The least that is allowed.
        high: The most that is allowed.

    Raises:
        InputError: If it is no number, nan or out of range.
    """
    allowed = f"allowed: {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is {shown(value)}; {allowed}; pass a number")
    try:
        number = float(value)
    except (OverflowError, ValueError) as exc:
        raise InputError(f"{name} is {shown(value)}; {allowed}") from exc
    if not low <= number <= high:
        raise InputError(f"{name} is {number:g}; {allowed}")
    return number


def check_kind(name: str, value: object, kind: type[T], *, how: str) -> T:
    """Return an object of one class.

    Args:
        name: What messages call it.
        value: The object.
        kind: The class.
        how: Where such an object comes from, the next step of the message.

    Raises:
        InputError: If it is of another class.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is {shown(value)}; allowed: a {kind.__name__}; {how}")
    return value


def check_callable(name: str, value: object) -> None:
    """Check that something can be called.

    Raises:
        InputError: If it cannot.
    """
    if not callable(value):
        raise InputError(f"{name} is {shown(value)}; allowed: a function, or None")
