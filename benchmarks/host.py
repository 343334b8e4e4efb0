"""Time a generation on this machine: the onnx bundle against eager PyTorch, in one run.

    python benchmarks/host.py [--runs 20] [--steps 4] [--json records.jsonl]

Both sides make the same clip: same weights, noise, schedule and number of threads. They take turns,
so that a machine whose speed drifts slows both; the figure to quote is the ratio of the medians.
Host overhead is what a generation spends outside the graphs (tokens, noise, sampler arithmetic).
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import mvsdk

PROMPT = "a rocket flying left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One side of the comparison; times in milliseconds of wall time."""

    side: str
    model: str
    steps: int
    threads: int
    runs: int
    median_ms: float
    p90_ms: float
    min_ms: float
    host_share: float | None
    """Share of a generation outside the graphs; None where it is not known."""
    versions: dict[str, str]
    machine: str
    date: str


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_KEEP)
    parser.add_argument("--model", default="sticker")
    parser.add_argument("--checkpoint", type=Path, help="model folder (default: the shipped one)")
    parser.add_argument("--runs", type=int, default=20, help="counted runs of each side")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the records to FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bench.mvbundle"
        _export(options.model, options.checkpoint, bundle)
        records = _measure(bundle, options)
    onnx, eager = records
    for record in records:
        share = "" if record.host_share is None else f", host {100 * record.host_share:.1f} %"
        print(
            f"{record.side:14s} median {record.median_ms:7.1f} ms, p90 {record.p90_ms:7.1f} ms, "
            f"min {record.min_ms:7.1f} ms{share}"
        )
    print(f"eager PyTorch / onnx fp32 = {eager.median_ms / onnx.median_ms:.2f} (medians)")
    if options.json:
        with options.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
    return 0


_KEEP = argparse.RawDescriptionHelpFormatter


def _export(model: str, checkpoint: Path | None, bundle: Path) -> None:
    command = [sys.executable, "-m", "mvsdk", "export", "--target", "onnx", "--precision", "fp32"]
    command += ["--model", model, "--out", str(bundle), "--no-verify"]
    command += ["--checkpoint", str(checkpoint)] if checkpoint else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _measure(bundle: Path, options: argparse.Namespace) -> tuple[Record, Record]:
    import torch

    torch.set_num_threads(options.threads)
    pipeline = mvsdk.load(bundle, backend=mvsdk.OnnxRuntime(threads=options.threads))
    shares: list[float] = []

    def run_onnx() -> None:
        video = pipeline.generate(PROMPT, seed=7, num_inference_steps=options.steps)
        assert video.timings is not None
        shares.append(video.timings.host_s / video.timings.total_s)

    run_eager = _eager(options, bundle)
    sides: dict[str, tuple[Callable[[], None], list[float]]] = {
        "onnx fp32": (run_onnx, []),
        "eager PyTorch": (run_eager, []),
    }
    for index in range(options.runs + 2):
        for run, times in sides.values():
            start = time.perf_counter()
            run()
            if index >= 2:  # the first two warm up
                times.append(1000 * (time.perf_counter() - start))
    share = statistics.median(shares[2:])
    onnx, eager = (
        _record(side, times, options, share if side == "onnx fp32" else None)
        for side, (_, times) in sides.items()
    )
    return onnx, eager


def _eager(options: argparse.Namespace, bundle: Path) -> Callable[[], None]:
    """Return a function that makes the same clip with PyTorch networks."""
    from mvsdk.tokenizer import WordPiece
    from mvsdk_export.checkpoints import default_model_folder, open_model_folder
    from mvsdk_export.recipes import find_recipe
    from mvsdk_export.reference import Case, Reference

    recipe = find_recipe(options.model)
    folder = open_model_folder(options.checkpoint or default_model_folder(recipe.name), recipe)
    manifest = mvsdk.Bundle.open(bundle).manifest
    tokenizer = manifest.tokenizer
    assert tokenizer is not None
    reference = Reference(
        {part.name: folder.load_graph(part.name) for part in recipe.components},
        WordPiece.from_file(folder.tokenizer_file, tokenizer.max_length),
        manifest.sampler,
    )
    case = Case(prompt=PROMPT, seed=7, num_inference_steps=options.steps)
    return lambda: (reference.run(case, manifest.latents.shape), None)[1]


def _record(
    side: str, times: list[float], options: argparse.Namespace, share: float | None
) -> Record:
    from mvsdk_export.stages import tool_versions

    return Record(
        side=side,
        model=options.model,
        steps=options.steps,
        threads=options.threads,
        runs=len(times),
        median_ms=round(statistics.median(times), 3),
        p90_ms=round(statistics.quantiles(times, n=10)[-1], 3) if len(times) > 1 else times[0],
        min_ms=round(min(times), 3),
        host_share=share,
        versions=tool_versions(),
        machine=f"{platform.system()} {platform.machine()}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


if __name__ == "__main__":
    sys.exit(main())
