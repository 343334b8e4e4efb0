"""Unicode 13.0, whatever version the Python that runs this knows.

Later versions assign more code points and change next to nothing of those that 13.0 has: their
normal forms and lower case stay as they are (Unicode's stability policies), and of all categories
only two did not. So text is read as 13.0 would by looking at which code points 13.0 assigns, here
and in every other language whose Unicode is 13.0 or later.

Reference:
    The Unicode Standard, version 13.0.0, UnicodeData.txt; UAX #15, Unicode Normalization Forms.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import cache
from itertools import accumulate, groupby
from typing import Literal

from mvsdk.tokenizers._unicode_13 import RUNS

NormalForm = Literal["NFC", "NFKC", "NFKD"]

REPLACEMENT = "\ufffd"
_CATEGORIES = {"\u1734": "Mc", "\U0001171e": "Mc"}
"""Mn in 13.0, and Mc in 14.0 and 16.0: taken for Mc, as what reads this is later than 13.0."""


@cache
def _borders() -> list[int]:
    """Return where runs begin and end, by turns, rising: the first begins at the first item."""
    return list(accumulate(int(word, 36) for word in RUNS.split()))


def assigned_ranges() -> list[tuple[int, int]]:
    """Return the ranges of assigned code points, both ends within."""
    borders = _borders()
    return [(first, past - 1) for first, past in zip(borders[::2], borders[1::2], strict=True)]


def is_assigned(char: str) -> bool:
    """Return whether 13.0 assigns a code point; surrogates count as not assigned."""
    return bisect_right(_borders(), ord(char)) % 2 == 1


def category(char: str) -> str:
    """Return the general category of a code point; `Cn` of what is not assigned."""
    if not is_assigned(char):
        return "Cn"
    return _CATEGORIES.get(char) or unicodedata.category(char)


def replace_unassigned(text: str) -> str:
    """Return a text with U+FFFD for every code point that is not assigned."""
    return "".join(char if is_assigned(char) else REPLACEMENT for char in text)


def normalize(form: NormalForm, text: str) -> str:
    """Return a normal form of a text; what is not assigned stays, and nothing joins across it."""
    return "".join(
        unicodedata.normalize(form, "".join(run)) if known else "".join(run)
        for known, run in groupby(text, is_assigned)
    )


def lower(char: str) -> str:
    """Return the lower case of one code point alone: two of them for U+0130, else one."""
    return char.lower() if is_assigned(char) else char
