"""Measure what a process of its own costs: first and further clips, isolated against not.

    python benchmarks/isolation.py BUNDLE... [--runs 7] [--clips 10] [--json records.jsonl]

Every run is a process of its own, which loads a bundle, makes a clip, and makes further ones; both
sides take turns, so that a machine whose speed drifts slows both. The figures to quote are the
differences and ratios of the medians.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mvsdk

PROMPT = "a rocket flying left"
HERE, ISOLATED = SIDES = ("in this process", "isolated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One side of a bundle; times in milliseconds of wall time."""

    bundle: str
    kind: str
    """What ran, such as onnx/fp32."""
    side: str
    runs: int
    clips: int
    """Further clips of each run."""
    first_median_ms: float
    """From `mvsdk.load` to the first clip."""
    first_min_ms: float
    further_median_ms: float
    """Of a clip after it."""
    further_p90_ms: float
    further_min_ms: float
    cpu_median_s: float
    """Processor time of a whole run, both processes, user and system."""
    versions: dict[str, str]
    machine: str
    date: str


def main() -> int:
    """Run the benchmark and print its table."""
    keep = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=keep)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--target", help="the target to run (default: the first that runs)")
    parser.add_argument("--runs", type=int, default=7, help="processes of each side")
    parser.add_argument("--clips", type=int, default=10, help="further clips of each run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the records to FILE")
    parser.add_argument("--turn", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        print(json.dumps(_take_turn(options.bundles[0], options)))
        return 0
    for bundle in options.bundles:
        records = _measure(bundle, options)
        _show(records)
        if options.json:
            with options.json.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(record)) + "\n" for record in records.values())
    return 0


def _measure(bundle: Path, options: argparse.Namespace) -> dict[str, Record]:
    turns: dict[str, list[dict[str, list[float]]]] = {side: [] for side in SIDES}
    for number in range(options.runs):
        for side in SIDES if number % 2 else SIDES[::-1]:
            command = [sys.executable, __file__, str(bundle), "--turn", side]
            command += ["--clips", str(options.clips)]
            command += ["--target", options.target] if options.target else []
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            turns[side].append(json.loads(answer.stdout))
    kind = mvsdk.load(bundle, target=options.target).selection.label
    return {side: _record(bundle, kind, side, turns[side]) for side in SIDES}


def _take_turn(bundle: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the wall times of the first clip, with its load, and of the further ones, in ms."""
    times: list[float] = []
    start = time.perf_counter()
    isolated = options.turn == ISOLATED
    with mvsdk.load(bundle, target=options.target, isolated=isolated) as pipeline:
        for _ in range(1 + options.clips):
            pipeline.generate(PROMPT, seed=7)
            now = time.perf_counter()
            times.append(1000 * (now - start))
            start = now
    return {"first_ms": times[:1], "further_ms": times[1:], "cpu_s": [sum(os.times()[:4])]}


def _record(bundle: Path, kind: str, side: str, turns: list[dict[str, list[float]]]) -> Record:
    from mvsdk_export.jobs.job import tool_versions

    first = [value for turn in turns for value in turn["first_ms"]]
    further = [value for turn in turns for value in turn["further_ms"]]
    return Record(
        bundle=bundle.name,
        kind=kind,
        side=side,
        runs=len(turns),
        clips=len(turns[0]["further_ms"]),
        first_median_ms=round(statistics.median(first), 1),
        first_min_ms=round(min(first), 1),
        further_median_ms=round(statistics.median(further), 2),
        further_p90_ms=round(statistics.quantiles(further, n=10)[-1], 2),
        further_min_ms=round(min(further), 2),
        cpu_median_s=round(statistics.median(turn["cpu_s"][0] for turn in turns), 2),
        versions=tool_versions(),
        machine=f"{platform.system()} {platform.machine()}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _show(records: dict[str, Record]) -> None:
    here, isolated = (records[side] for side in SIDES)
    print(f"{here.bundle}, {here.kind}, {here.runs} runs of 1 + {here.clips} clips")
    for record in (here, isolated):
        print(
            f"  {record.side:16s} first clip median {record.first_median_ms:8.1f} ms, "
            f"min {record.first_min_ms:8.1f} ms; further median {record.further_median_ms:8.2f} "
            f"ms, p90 {record.further_p90_ms:8.2f} ms, min {record.further_min_ms:8.2f} ms; "
            f"processor {record.cpu_median_s:.2f} s"
        )
    first = isolated.first_median_ms - here.first_median_ms
    further = isolated.further_median_ms - here.further_median_ms
    print(
        f"  isolation: first clip {first:+.0f} ms "
        f"(x {isolated.first_median_ms / here.first_median_ms:.2f}), further {further:+.2f} ms "
        f"(x {isolated.further_median_ms / here.further_median_ms:.3f}) (medians)"
    )


if __name__ == "__main__":
    sys.exit(main())
