"""How cases are written: what is asked of a bundle, and what a system needs for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from folder_cases.bundles import B
from folder_cases.steps import Step

Case = dict[str, Any]


def case(
    name: str,
    rule: str | None,
    before: Sequence[Step] = (),
    do: str = "open",
    **more: Any,
) -> Case:
    """Return a case: what is done before, and what is asked of the bundle `tiny` then."""
    return {
        "name": name,
        "base": "tiny",
        "before": list(before),
        "bundle": B,
        "packs": {},
        "do": do,
        "after": [],
        "twice": False,
        "needs": [],
        **more,
        "rule": rule,
    }


def load(
    name: str,
    rule: str | None,
    before: Sequence[Step] = (),
    variant: str = "onnx",
    component: str = "unet",
    **more: Any,
) -> Case:
    """Return a case that loads a variant."""
    return case(name, rule, before, "load", component=component, variant=variant, **more)


LINKS: Case = {"needs": ["links"]}
PIPES: Case = {"needs": ["pipes"]}
CASES: Case = {"needs": ["case"]}
"""What a system has to have for a case: links, pipes, names that differ in case."""
