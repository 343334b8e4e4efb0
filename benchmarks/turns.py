"""Sides of a comparison that take turns, and what every record of one says."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvsdk_export.jobs.job import tool_versions

WARM_UP = 2
"""Runs that are not counted at the start of every turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Clips that one side made; times in milliseconds of wall time."""

    side: str
    model: str
    steps: int
    threads: int
    runs: int
    median_ms: float
    p90_ms: float
    min_ms: float
    versions: Mapping[str, str]
    machine: str
    date: str


def take_turns(
    commands: Mapping[str, Sequence[str]], *, runs: int, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Run every side's command once a round, so that a machine whose speed drifts slows all.

    Args:
        commands: Side -> arguments of this interpreter; each prints one JSON object, and takes
            how many runs it shall count as `--runs`.
        runs: That each side shall count in all, at least.
        rounds: Turns that each side takes.

    Returns:
        Side -> what its turns printed.
    """
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in commands}
    each = str(max(1, math.ceil(runs / rounds)))
    for _ in range(rounds):
        for side, arguments in commands.items():
            command = [sys.executable, *arguments, "--runs", each]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            turns[side].append(json.loads(answer.stdout))
    return turns


def joined(turns: Sequence[Mapping[str, list[float]]], key: str) -> list[float]:
    """Return the values of all turns of a side."""
    return [value for turn in turns for value in turn[key]]


def summarize(
    side: str, turns: Sequence[Mapping[str, list[float]]], options: argparse.Namespace
) -> Timed:
    """Return the record of one side's clips.

    Args:
        side: Its name.
        turns: What `take_turns` returned of it, with `times_ms`.
        options: Has `model`, `steps` and `threads`.
    """
    values = sorted(joined(turns, "times_ms"))
    return Timed(
        side=side,
        model=options.model,
        steps=options.steps,
        threads=options.threads,
        runs=len(values),
        median_ms=round(statistics.median(values), 3),
        p90_ms=round(statistics.quantiles(values, n=10)[-1] if values[1:] else values[0], 3),
        min_ms=round(values[0], 3),
        versions=tool_versions(),
        machine=f"{platform.system()} {platform.machine()}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
