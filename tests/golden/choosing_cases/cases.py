"""How cases are written: what is chosen, or why nothing is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from choosing_cases.bundles import BASES

Case = dict[str, Any]
Edit = dict[str, Any]


def runs(
    name: str,
    base: str,
    device: dict[str, Any],
    chosen: str,
    *,
    verified: bool = True,
    edits: Sequence[Edit] = (),
    **options: Any,
) -> Case:
    """Return a device, and the set that it runs."""
    asked = _asked(name, base, device, edits, options)
    return {**asked, "set": chosen, "verified": verified}


def refused(
    name: str,
    base: str,
    device: dict[str, Any],
    reasons: Mapping[str, Sequence[str]] | None = None,
    *,
    edits: Sequence[Edit] = (),
    **options: Any,
) -> Case:
    """Return a refusal; no reasons mean that nothing is what was asked for."""
    return {
        **_asked(name, base, device, edits, options),
        "rule": "C5",
        "refused": "filter" if reasons is None else "device",
        "reasons": {key: list(kinds) for key, kinds in (reasons or {}).items()},
    }


def _asked(
    name: str, base: str, device: dict[str, Any], edits: Sequence[Edit], options: dict[str, Any]
) -> Case:
    return {
        "name": name,
        "base": base,
        "edits": list(edits),
        "device": device,
        "options": options,
    }


def requires(base: str, number: int, versions: Mapping[str, str]) -> list[Edit]:
    """Return edits: what both variants of a place require."""
    components = BASES[base]["components"]
    return [
        {"at": ["components", name, "variants", number, "requires"], "set": dict(versions)}
        for name in components
    ]


def same_reasons(names: Iterable[str], *kinds: str) -> dict[str, list[str]]:
    """Return the same reasons for each of several sets."""
    return {name: list(kinds) for name in names}
