"""Time a clip whose denoiser is one graph against one whose conditioning runs once for the clip.

    python benchmarks/conditioning.py [--runs 40] [--steps 4] [--json records.jsonl]
    python benchmarks/conditioning.py --bundles WHOLE.mvbundle CUT.mvbundle

Both bundles are exported to ONNX in float32 from one model folder. Each side runs in a process of
its own, and the processes take turns, so that a machine whose speed drifts slows both; the figure
to quote is the ratio of the medians. Both make the same clip, whose frames are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from turns import WARM_UP, Timed, joined, summarize, take_turns

import mvsdk

if TYPE_CHECKING:
    from mvsdk_export.planning.request import ExportRequest

PROMPT = "a rocket flying left"
WHOLE, CUT = SIDES = ("one graph", "conditioning once")
ROUNDS = 8
"""Turns that each side takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Timed):
    """One side of the comparison."""

    encode_median_ms: float
    """Inside the graphs that run once: the text encoder, and the conditioning where it is cut."""
    denoise_median_ms: float
    """Inside the denoiser, all steps of a clip."""
    psnr_db: float | None
    """Of the frames against those of one graph; None for equal ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What a model of a bundle is made of."""

    component: str
    nodes: int
    flops: int
    """Of one evaluation."""
    weight_bytes: int
    crossing_bytes: int
    """Float32 bytes that it takes or gives across the cut."""


def main() -> int:
    """Run the benchmark and print its tables."""
    keep = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=keep)
    parser.add_argument("--model", default="sticker")
    parser.add_argument("--checkpoint", type=Path, help="model folder (default: the shipped one)")
    parser.add_argument("--bundles", type=Path, nargs=2, help="bundles that are there already")
    parser.add_argument("--runs", type=int, default=40, help="counted runs of each side")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the records to FILE")
    parser.add_argument("--turn", nargs=2, metavar=("BUNDLE", "FRAMES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        bundle, frames = map(Path, options.turn)
        print(json.dumps(_take_turn(bundle, frames, options)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = options.bundles or [folder / "whole.mvbundle", folder / "cut.mvbundle"]
        bundles: dict[str, Path] = dict(zip(SIDES, paths, strict=True))
        if options.bundles is None:
            _export(options, bundles, folder / "cache")
        for side, bundle in bundles.items():
            _show_graphs(side, describe_graphs(bundle))
        records = _measure(bundles, folder, options)
    for record in records:
        psnr = "equal frames" if record.psnr_db is None else f"PSNR {record.psnr_db:.1f} dB"
        print(
            f"{record.side:18s} median {record.median_ms:7.1f} ms, p90 {record.p90_ms:7.1f} ms, "
            f"min {record.min_ms:7.1f} ms, encode {record.encode_median_ms:5.1f} ms, "
            f"denoise {record.denoise_median_ms:7.1f} ms, {psnr}"
        )
    whole, cut = records
    print(f"{CUT} / {WHOLE} = {cut.median_ms / whole.median_ms:.3f} (medians)")
    if options.json:
        with options.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
    return 0


def _export(options: argparse.Namespace, bundles: Mapping[str, Path], cache: Path) -> None:
    """Make both bundles; jobs that they share run once."""
    from mvsdk_export.export import export
    from mvsdk_export.jobs.runner import JobRunner

    request = _request(options, bundles[CUT])
    with JobRunner(cache) as runner:
        for side, out in bundles.items():
            one = replace(request, out=out, runs_conditioning_once=side == CUT)
            export(one, runner, lambda _: None)


def _request(options: argparse.Namespace, out: Path) -> ExportRequest:
    from mvsdk_export.checkpoints import default_model_folder, open_model
    from mvsdk_export.families import find_recipe
    from mvsdk_export.planning.request import ExportRequest, plan_variants

    recipe = find_recipe(options.model)
    folder = open_model(options.checkpoint or default_model_folder(recipe.name), recipe)
    return ExportRequest(
        folder=folder,
        variants=plan_variants("onnx", ["fp32"]),
        num_frames=recipe.num_frames,
        height=recipe.height,
        width=recipe.width,
        steps=tuple(sorted({options.steps, *recipe.steps})),
        out=out,
        verify=False,
    )


def describe_graphs(bundle: Path) -> list[Graph]:
    """Return what the denoiser's ONNX models are made of, and what crosses between them.

    Args:
        bundle: Bundle with ONNX variants.
    """
    import onnx

    manifest = mvsdk.Bundle.open(bundle).manifest
    made = {
        tensor.name: tensor
        for part in manifest.components.values()
        if part.role == "conditioning"
        for tensor in part.outputs
    }
    found: list[Graph] = []
    for name, part in manifest.components.items():
        if part.role not in ("denoiser", "conditioning"):
            continue
        variant = next(item for item in part.variants if item.format == "onnx")
        model = onnx.load(bundle / variant.model, load_external_data=False)
        crossing = [x for x in (*part.inputs, *part.outputs) if x.name in made]
        found.append(
            Graph(
                component=name,
                nodes=len(model.graph.node),
                flops=int(manifest.costs[name]["flops"]),
                weight_bytes=sum(file.bytes for file in variant.files),
                crossing_bytes=sum(4 * math.prod(tensor.shape) for tensor in crossing),
            )
        )
    return found


def _show_graphs(side: str, graphs: list[Graph]) -> None:
    for graph in graphs:
        print(
            f"{side:18s} {graph.component:26s} {graph.nodes:5d} nodes, "
            f"{graph.flops / 1e6:8.1f} MFLOP, {graph.weight_bytes / 1e6:6.2f} MB, "
            f"{graph.crossing_bytes / 1e6:5.2f} MB cross"
        )


def _measure(
    bundles: Mapping[str, Path], folder: Path, options: argparse.Namespace
) -> list[Record]:
    frames = {side: folder / f"{index}.npy" for index, side in enumerate(SIDES)}
    given = ["--steps", str(options.steps), "--threads", str(options.threads)]
    commands = {
        side: [__file__, "--turn", str(bundles[side]), str(frames[side]), *given] for side in SIDES
    }
    turns = take_turns(commands, runs=options.runs, rounds=ROUNDS)
    psnr = _psnr_db(frames[WHOLE], frames[CUT])
    records: list[Record] = []
    for side in SIDES:
        timed = summarize(side, turns[side], options)
        records.append(
            Record(
                **asdict(timed),
                encode_median_ms=round(statistics.median(joined(turns[side], "encode_ms")), 3),
                denoise_median_ms=round(statistics.median(joined(turns[side], "denoise_ms")), 3),
                psnr_db=psnr if side == CUT else None,
            )
        )
    return records


def _take_turn(bundle: Path, frames: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return wall times of clips and of their graphs in ms; write the frames of the last."""
    import numpy as np

    pipeline = mvsdk.load(bundle, backend=mvsdk.OnnxRuntime(threads=options.threads))
    times: list[float] = []
    encode: list[float] = []
    denoise: list[float] = []
    for _ in range(options.runs + WARM_UP):
        start = time.perf_counter()
        video = pipeline.generate(PROMPT, seed=7, num_inference_steps=options.steps)
        times.append(1000 * (time.perf_counter() - start))
        assert video.timings is not None
        encode.append(1000 * video.timings.encode_s)
        denoise.append(1000 * sum(video.timings.denoise_s))
        np.save(frames, video.frames)
    found = {"times_ms": times, "encode_ms": encode, "denoise_ms": denoise}
    return {name: values[WARM_UP:] for name, values in found.items()}


def _psnr_db(whole: Path, cut: Path) -> float | None:
    import numpy as np

    from mvsdk_export.parity.verify import psnr_db

    return psnr_db(np.load(cut), np.load(whole).astype(np.float64))


if __name__ == "__main__":
    sys.exit(main())
