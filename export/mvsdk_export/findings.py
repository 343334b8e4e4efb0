"""Findings: what was looked at, its value, the limit, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mvsdk_export.errors import ExportError

Severity = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One limit and how far away it is."""

    severity: Severity
    what: str
    value: str
    limit: str
    next_step: str = ""
    """Empty if there is nothing to do."""


def check_findings(findings: Sequence[Finding]) -> None:
    """Raise if any finding is an error.

    Raises:
        ExportError: With the first error; the number of others is named.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    first = errors[0]
    more = f" (and {len(errors) - 1} more, see mvsdk plan)" if len(errors) > 1 else ""
    raise ExportError(
        f"{first.what} is {first.value}, allowed: {first.limit}; {first.next_step}{more}"
    )
