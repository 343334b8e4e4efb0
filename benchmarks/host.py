"""Time a generation on this machine: the onnx bundle against eager PyTorch, in one run.

    python benchmarks/host.py [--runs 20] [--steps 4] [--json records.jsonl]

All sides make the same kind of clip: same weights, schedule and number of threads. Each runs in a
process of its own, as threads that spin after their work slow whatever else runs in the process,
and the processes take turns, so that a machine whose speed drifts slows all; the figures to quote
are the ratios of the medians. Eager PyTorch runs twice: the network as it was exported
(`select_implementations_`, so the same operators on both sides) and as it suits PyTorch best.
Host overhead is what a generation spends outside the graphs (tokens, noise, sampler arithmetic).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from turns import WARM_UP, Timed, joined, summarize, take_turns

import mvsdk

PROMPT = "a rocket flying left"
ONNX, EXPORTED, EAGER = SIDES = ("onnx fp32", "eager, exported forms", "eager, PyTorch's forms")
ROUNDS = 4
"""Turns that each side takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Timed):
    """One side of the comparison."""

    host_share: float | None
    """Share of a generation outside the graphs; None where it is not known."""


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_KEEP)
    parser.add_argument("--model", default="sticker")
    parser.add_argument("--checkpoint", type=Path, help="model folder (default: the shipped one)")
    parser.add_argument("--runs", type=int, default=20, help="counted runs of each side")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the records to FILE")
    parser.add_argument("--turn", nargs=2, metavar=("SIDE", "BUNDLE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        side, bundle = options.turn
        print(json.dumps(_take_turn(side, Path(bundle), options)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bench.mvbundle"
        _export(options.model, options.checkpoint, bundle)
        records = _measure(bundle, options)
    for record in records.values():
        share = "" if record.host_share is None else f", host {100 * record.host_share:.1f} %"
        print(
            f"{record.side:22s} median {record.median_ms:7.1f} ms, p90 {record.p90_ms:7.1f} ms, "
            f"min {record.min_ms:7.1f} ms{share}"
        )
    for side in (EXPORTED, EAGER):
        ratio = records[side].median_ms / records[ONNX].median_ms
        print(f"{side} / {ONNX} = {ratio:.2f} (medians)")
    if options.json:
        with options.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(record)) + "\n" for record in records.values())
    return 0


_KEEP = argparse.RawDescriptionHelpFormatter


def _export(model: str, checkpoint: Path | None, bundle: Path) -> None:
    command = [sys.executable, "-m", "mvsdk", "export", "--target", "onnx", "--precision", "fp32"]
    command += ["--model", model, "--out", str(bundle), "--no-verify"]
    command += ["--checkpoint", str(checkpoint)] if checkpoint else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _measure(bundle: Path, options: argparse.Namespace) -> dict[str, Record]:
    given = ["--model", options.model, "--steps", str(options.steps)]
    given += ["--threads", str(options.threads)]
    given += ["--checkpoint", str(options.checkpoint)] if options.checkpoint else []
    commands = {side: [__file__, "--turn", side, str(bundle), *given] for side in SIDES}
    turns = take_turns(commands, runs=options.runs, rounds=ROUNDS)
    records: dict[str, Record] = {}
    for side in SIDES:
        timed = summarize(side, turns[side], options)
        shares = joined(turns[side], "host_shares")
        share = statistics.median(shares) if shares else None
        records[side] = Record(**asdict(timed), host_share=share)
    return records


def _take_turn(side: str, bundle: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the wall times of a side in ms, and its host shares where they are known."""
    shares: list[float] = []
    run = _onnx(bundle, options, shares) if side == ONNX else _eager(side, bundle, options)
    times: list[float] = []
    for _ in range(options.runs + WARM_UP):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return {"times_ms": times[WARM_UP:], "host_shares": shares[WARM_UP:]}


def _onnx(bundle: Path, options: argparse.Namespace, shares: list[float]) -> Callable[[], None]:
    """Return a function that makes a clip with the bundle and notes its share outside graphs."""
    pipeline = mvsdk.load(bundle, backend=mvsdk.OnnxRuntime(threads=options.threads))

    def run() -> None:
        video = pipeline.generate(PROMPT, seed=7, num_inference_steps=options.steps)
        assert video.timings is not None
        shares.append(video.timings.host_s / video.timings.total_s)

    return run


def _eager(side: str, bundle: Path, options: argparse.Namespace) -> Callable[[], None]:
    """Return a function that makes the same clip with PyTorch networks."""
    import torch

    from mvsdk_export.checkpoints import default_model_folder, open_model
    from mvsdk_export.families import find_recipe
    from mvsdk_export.families.pipeline import Clip
    from mvsdk_export.layers.selection import select_implementations_
    from mvsdk_export.parity.recording import decode_frames_of
    from mvsdk_export.parity.reference import Case, Reference

    torch.set_num_threads(options.threads)
    recipe = find_recipe(options.model)
    folder = open_model(options.checkpoint or default_model_folder(recipe.name), recipe)
    manifest = mvsdk.Bundle.open(bundle).manifest
    networks = {part.name: folder.load_graph(part.name) for part in recipe.components}
    if side == EXPORTED:
        for network in networks.values():
            select_implementations_(network, "htp")
    video = manifest.program.video
    clip = Clip(
        num_frames=video.frames,
        height=video.height,
        width=video.width,
        decode_frames=decode_frames_of(manifest),
        steps=(options.steps,),
        default_steps=options.steps,
    )
    reference = Reference.of(folder, clip, networks)
    seeds = count(7)  # each clip is of its own: what networks gave for a seed is kept

    def run() -> None:
        case = Case(prompt=PROMPT, seed=next(seeds), num_inference_steps=options.steps)
        reference.run(case)

    return run


if __name__ == "__main__":
    sys.exit(main())
