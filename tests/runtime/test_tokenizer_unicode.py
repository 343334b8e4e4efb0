"""Text is read as Unicode 13.0 has it, under every Python."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest

from mvsdk.tokenizers import _unicode as unicode_13

RANGES = json.loads((Path(__file__).parents[1] / "golden" / "unicode_13.json").read_text("utf-8"))


def test_the_table_has_the_ranges_of_unicode_13() -> None:
    ranges = unicode_13.assigned_ranges()
    assert [f"{first:04X}-{last:04X}" for first, last in ranges] == RANGES["ranges"]
    assert len(ranges) == 677
    assert sum(last - first + 1 for first, last in ranges) == RANGES["code_points"] == 281392
    digest = hashlib.sha256(" ".join(RANGES["ranges"]).encode()).hexdigest()
    assert digest == "7d38ed0909ea45e4ad4b2e0c1be061227b33a5225a8c2868b031044fa01cd5f5"


def test_what_unicode_13_assigns_this_python_knows() -> None:
    for first, last in unicode_13.assigned_ranges():
        for code in range(first, last + 1):
            assert unicodedata.category(chr(code)) not in ("Cn", "Cs"), hex(code)


@pytest.mark.parametrize(
    ("char", "category"),
    [("a", "Ll"), ("\u1734", "Mc"), ("\U0001171e", "Mc"), ("\U0001fae0", "Cn"), ("\ud800", "Cn")],
)
def test_categories_are_those_of_unicode_13(char: str, category: str) -> None:
    assert unicode_13.category(char) == category


def test_nothing_is_composed_or_reordered_across_what_is_not_assigned() -> None:
    new = "\u1ac1"  # a mark of Unicode 14.0, of combining class 230
    assert unicode_13.normalize("NFC", f"e{new}\u0301") == f"e{new}\u0301"
    assert unicode_13.normalize("NFC", f"e\u0301{new}") == f"\u00e9{new}"
    assert unicode_13.replace_unassigned(f"e{new}") == "e\ufffd"


def test_normal_forms_of_all_of_unicode_13_are_what_they_were() -> None:
    """The digest was made by a Python whose own Unicode is 13.0."""
    digest = hashlib.sha256()
    for first, last in unicode_13.assigned_ranges():
        for char in map(chr, range(first, last + 1)):
            forms = (unicodedata.normalize(form, char) for form in ("NFC", "NFKC", "NFKD"))
            line = "\t".join((unicode_13.category(char), *forms, unicode_13.lower(char)))
            digest.update(line.encode() + b"\n")
    assert digest.hexdigest() == "7f4b504082f52a6626f84694dc06b65e9d67fc88d61d6dee096213a4c8233df3"
