"""Bundles on disk against tests/golden/folders.json, and in folders that were changed at random."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from folder_steps import NAME, ask, make_base
from mutated_folders import mutate, try_all

from mvsdk.errors import BundleError

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/folders.json").read_text(encoding="utf-8")
)
BASES = {item["name"]: item for item in GOLDEN["bases"]}


def _has(need: str, folder: Path) -> bool:
    if need == "links":
        return hasattr(os, "symlink") and os.name != "nt"
    if need == "pipes":
        return hasattr(os, "mkfifo")
    (folder / "case").touch()
    found = not (folder / "CASE").exists()
    (folder / "case").unlink()
    return found


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_a_folder_is_taken_or_refused_by_its_rule(case: dict[str, Any], tmp_path: Path) -> None:
    if missing := [need for need in case["needs"] if not _has(need, tmp_path)]:
        pytest.skip(f"this system lacks {missing[0]}")
    make_base(tmp_path, BASES[case["base"]], case["before"])
    if case["rule"] is None:
        ask(tmp_path, case)
        return
    with pytest.raises(BundleError) as caught:
        ask(tmp_path, case)
    assert caught.value.rule == case["rule"]
    message = str(caught.value)
    assert message.endswith(f"[{case['rule']}]")
    assert len(message.splitlines()) == 1


def test_there_are_cases_of_every_rule() -> None:
    assert len(GOLDEN["cases"]) >= 60
    assert len({case["name"] for case in GOLDEN["cases"]}) == len(GOLDEN["cases"])
    rules = {case["rule"] for case in GOLDEN["cases"]}
    assert rules == {None, "F1", "F5", "F6", "F7", "F10", "D1", "D2", "D8"}


@pytest.mark.parametrize("seed", range(8))
def test_a_folder_that_was_changed_at_random_opens_or_breaks_a_rule(
    seed: int, tmp_path: Path
) -> None:
    generator = random.Random(seed)
    for number in range(5):
        root = tmp_path / str(number)
        root.mkdir()
        make_base(root, BASES["tiny"], ())
        mutate(generator, root)
        try_all(root / NAME, {"sm8650": root / "p"} if (root / "p").is_dir() else {})
