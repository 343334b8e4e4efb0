"""Hashes of files against tests/golden/sha256.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from make_sha256 import content

from mvsdk.bundle import sha256_file

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/sha256.json").read_text(encoding="utf-8")
)
FIPS_180_4 = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    3: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    56: "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    1_000_000: "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
}
"""Bytes -> digest, as NIST published them."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['bytes']}-{case['hex'][:4]}")
def test_a_file_has_the_hash(case: dict[str, Any], tmp_path: Path) -> None:
    pattern, path = bytes.fromhex(case["hex"]), tmp_path / "file"
    with path.open("wb") as file:
        if any(pattern):
            file.writelines(content(pattern, case["bytes"]))
        file.truncate(case["bytes"])  # of zeros alone, which take no room then
    assert sha256_file(path) == case["sha256"]


def test_the_first_are_those_that_everybody_knows() -> None:
    first = {case["bytes"]: case["sha256"] for case in CASES[: len(FIPS_180_4)]}
    assert first == FIPS_180_4
    assert max(case["bytes"] for case in CASES) * 8 > 2**32
