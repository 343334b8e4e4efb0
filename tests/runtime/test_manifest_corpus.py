"""Python refuses what `malformed.json` says, by that rule and at that place, and takes the rest."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from corpus.cases import payload_of
from manifests import ROOT, refused

from mvsdk.manifest import Manifest

Case = dict[str, Any]


def _cases(name: str) -> list[Case]:
    return json.loads((ROOT / f"tests/golden/{name}.json").read_text("utf-8"))


MALFORMED, ACCEPTED = _cases("malformed"), _cases("accepted")
RULES = Counter(case["rule"] for case in MALFORMED)
ELSEWHERE = {
    *("D11", "G8", "P6", "R3"),  # definitions, and what a manifest cannot break
    *("F1", "F5", "F6", "F7", "F8", "F9", "F12"),  # folders
    *("G13", "G14", "G15", "G16", "G17", "G18", "S4", "S5"),  # values
    *("C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8"),  # devices and callers
}
"""Rules that are no matter of what a manifest says."""


@pytest.mark.parametrize("rule", RULES)
def test_malformed_manifests_are_refused_by_their_rule_at_their_place(rule: str) -> None:
    for case in MALFORMED:
        if case["rule"] == rule:
            error = refused(payload_of(case))
            assert (case["name"], error.rule, error.where) == (case["name"], rule, case["where"])


def test_every_rule_that_a_manifest_can_break_is_broken_in_several_ways() -> None:
    text = (ROOT / "docs/bundle_format.md").read_text("utf-8")
    rules = set(re.findall(r"\*\*([A-Z][0-9]+)(?:\*\*|\.)", text))
    assert rules - ELSEWHERE == set(RULES) - {"D11", "T6"}
    assert min(RULES.values()) >= 3
    assert sum(RULES.values()) >= 1000
    assert len({case["name"] for case in MALFORMED}) == len(MALFORMED)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case["name"])
def test_odd_manifests_are_read_and_written(case: Case) -> None:
    manifest = Manifest.from_json(payload_of(case))
    written = manifest.to_json()
    assert Manifest.from_json(written) == manifest
    assert case.get("written", "") in written.decode()
    if "same_as" in case:
        same = Manifest.from_json(payload_of({"name": case["name"], **case["same_as"]}))
        assert manifest == same
        assert written == same.to_json()
