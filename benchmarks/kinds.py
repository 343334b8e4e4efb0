"""Time what runs a bundle on this machine: every kind of variant that it holds, against onnx fp32.

    python benchmarks/kinds.py BUNDLE [BUNDLE ...] [--runs 10] [--json records.jsonl]

Two times of each kind: a clip of a pipeline that has made one already, and the whole of
`mvsdk generate` (or `animate`) from start to end, imports and graphs loaded and file written. Each
turn is a process of its own and the kinds take turns, so that a machine whose speed drifts slows
all; the figures to quote are the ratios of the medians. Seconds of the processors are counted too:
where others use the machine, wall time is theirs as well. Kinds that only an emulator or checker
runs are left out unless `--all` is given.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import mvsdk
from mvsdk.backends import select
from mvsdk.manifest import VariantKey

PROMPT = "a rocket flying left"
SEED = 7
BASE = "onnx/fp32"
"""What others are compared with, if it is there."""
ROUNDS = 2
"""Turns that each kind takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One kind; seconds of wall time, and of all processors together (`cpu`)."""

    model: str
    kind: str
    backend: str
    steps: int
    runs: int
    clip_median_s: float
    clip_min_s: float
    clip_max_s: float
    clip_cpu_median_s: float
    commands: int
    command_median_s: float
    command_min_s: float
    command_max_s: float
    command_cpu_median_s: float
    cores: int
    machine: str
    date: str


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds on the clock and of the processors, of this process and those that it waited for."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> _Times:
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def __sub__(self, other: _Times) -> _Times:
        return _Times(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


@dataclass
class _Side:
    bundle: Path
    key: VariantKey
    backend: str = ""
    clips: list[_Times] = field(default_factory=list["_Times"])
    commands: list[_Times] = field(default_factory=list["_Times"])


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--runs", type=int, default=10, help="counted clips of each kind")
    parser.add_argument("--commands", type=int, default=4, help="whole commands of each kind")
    parser.add_argument("--all", action="store_true", help="time emulators and checkers too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the records to FILE")
    parser.add_argument("--turn", metavar="KIND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        filters = json.loads(options.turn)
        print(json.dumps(_time_clips(options.bundles[0], filters, options.runs)))
        return 0
    sides = [side for path in options.bundles for side in _sides(path, everything=options.all)]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for side in sides:
                _take_turn(side, Path(folder), options)
    records = [_record(side) for side in sides]
    _show(records)
    if options.json:
        with options.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
    return 0


def _sides(path: Path, *, everything: bool) -> list[_Side]:
    bundle = mvsdk.Bundle.open(path)
    denoiser, *_ = bundle.manifest.names_with_role("denoiser")
    sides: list[_Side] = []
    for key in dict.fromkeys(x.key for x in bundle.manifest.components[denoiser].variants):
        try:
            choice = select(bundle, **_filters(key))
        except mvsdk.BackendError as exc:
            print(f"{key} is left out: {exc}", file=sys.stderr)
            continue
        if choice.place != "emulator" or everything:
            sides.append(_Side(path, key))
    return sides


def _filters(key: VariantKey) -> dict[str, Any]:
    return {
        "target": key.target,
        "format": key.delegate or key.format,
        "precision": key.precision,
        "chip": key.chip,
    }


def _take_turn(side: _Side, folder: Path, options: argparse.Namespace) -> None:
    """Time some clips in a process, then some whole commands."""
    filters = _filters(side.key)
    command = [sys.executable, __file__, str(side.bundle), "--turn", json.dumps(filters)]
    command += ["--runs", str(math.ceil(options.runs / ROUNDS))]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    turn = json.loads(answer.stdout)
    side.clips += [_Times(*times) for times in turn["times_s"]]
    side.backend = turn["backend"]
    command = [sys.executable, "-m", "mvsdk", *_verb(side.bundle, folder)]
    command += ["--bundle", str(side.bundle), "--seed", str(SEED)]
    command += ["-o", str(folder / "clip.mp4"), "--overwrite"]
    for name, value in filters.items():
        command += [f"--{name}", value] if value is not None else []
    for _ in range(math.ceil(options.commands / ROUNDS)):
        start = _Times.now()
        subprocess.run(command, check=True, capture_output=True)
        side.commands.append(_Times.now() - start)


def _verb(bundle: Path, folder: Path) -> list[str]:
    """Return the command that makes a clip of a bundle, without its options."""
    program = mvsdk.Bundle.open(bundle).manifest.program
    if program.task != "image_to_video":
        return ["generate", PROMPT]
    from PIL import Image

    picture = folder / "picture.png"
    Image.new("RGB", (program.video.width, program.video.height), "teal").save(picture)
    return ["animate", str(picture)]


def _time_clips(path: Path, filters: Mapping[str, Any], runs: int) -> dict[str, object]:
    """Return the wall times of clips after the first, and what ran them."""
    with tempfile.TemporaryDirectory() as folder, mvsdk.load(path, **filters) as pipeline:
        verb, given = _verb(path, Path(folder))
        make = pipeline.generate if verb == "generate" else pipeline.animate
        times: list[tuple[float, float]] = []
        make(given, seed=SEED)
        for _ in range(runs):
            start = _Times.now()
            make(given, seed=SEED)
            times.append(astuple(_Times.now() - start))
        return {"times_s": times, "backend": pipeline.selection.describe()}


def _record(side: _Side) -> Record:
    manifest = mvsdk.Bundle.open(side.bundle).manifest
    sampler, *_ = manifest.program.samplers()
    clips = [times.wall_s for times in side.clips]
    commands = [times.wall_s for times in side.commands]
    return Record(
        model=manifest.name,
        kind=str(side.key),
        backend=side.backend,
        steps=manifest.samplers[sampler].default_steps,
        runs=len(clips),
        clip_median_s=round(statistics.median(clips), 4),
        clip_min_s=round(min(clips), 4),
        clip_max_s=round(max(clips), 4),
        clip_cpu_median_s=round(statistics.median(x.cpu_s for x in side.clips), 4),
        commands=len(commands),
        command_median_s=round(statistics.median(commands), 3),
        command_min_s=round(min(commands), 3),
        command_max_s=round(max(commands), 3),
        command_cpu_median_s=round(statistics.median(x.cpu_s for x in side.commands), 3),
        cores=os.cpu_count() or 0,
        machine=f"{platform.system()} {platform.machine()}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _show(records: list[Record]) -> None:
    bases = {record.model: record for record in records if record.kind == BASE}
    for record in records:
        ratio = ""
        if base := bases.get(record.model):
            wall = record.clip_median_s / base.clip_median_s
            cpu = record.clip_cpu_median_s / base.clip_cpu_median_s
            ratio = f", {wall:.2f} of {BASE} (cpu {cpu:.2f})"
        print(
            f"{record.model} {record.kind:24s} a clip {record.clip_median_s:.3f} s "
            f"({record.clip_min_s:.3f} to {record.clip_max_s:.3f}, "
            f"cpu {record.clip_cpu_median_s:.3f}){ratio}; "
            f"the command {record.command_median_s:.2f} s "
            f"({record.command_min_s:.2f} to {record.command_max_s:.2f}, "
            f"cpu {record.command_cpu_median_s:.2f}); {record.backend}"
        )


if __name__ == "__main__":
    sys.exit(main())
