"""`mvsdk generate`: a prompt becomes a clip."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mvsdk.cli.command import Command, whole_number
from mvsdk.cli.output import Progress, format_seconds, say, show, show_json
from mvsdk.errors import InputError, OutputError

if TYPE_CHECKING:
    from mvsdk.generation import Step, Timings
    from mvsdk.pipeline import Pipeline
    from mvsdk.video import Video

_SHOWN_WORDS = 5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help="what the clip shows")
    add("--bundle", metavar="DIR", help="default: $MVSDK_BUNDLE, else the one *.mvbundle here")
    add("--target", metavar="T", help="onnx or snapdragon; default: what runs here")
    add("--chip", metavar="C", help="variant for this chip (mvsdk devices)")
    add("--precision", metavar="P", help="such as fp32 or w8a16; default: the first that runs")
    add("--steps", type=whole_number, metavar="N", help="one of the bundle's numbers of steps")
    add("--seed", type=whole_number, default=0, metavar="N", help="0 to 2**64-1; default 0")
    add("--memory", choices=("fast", "low"), default="fast", help="low: one graph at a time")
    add("-o", "--output", type=Path, metavar="FILE", help=".mp4 .webp .gif .png .npy")
    add("--fps", type=float, metavar="R", help="frames per second; default: the bundle's")
    add("--scale", type=whole_number, metavar="N", help="enlarge every pixel to N x N")
    add("--overwrite", action="store_true", help="replace the output file if it exists")
    add("--json", action="store_true", help="print the result as JSON")


def _run(options: argparse.Namespace) -> int:
    import mvsdk
    from mvsdk.video import check_fps, check_scale

    bundle = _bundle_path(options.bundle)
    path: Path = options.output or _free_name(options.prompt, options.seed)
    _check_output(path, overwrite=options.overwrite)
    if options.fps is not None:
        check_fps(options.fps)
    if options.scale is not None:
        check_scale(options.scale)
    with mvsdk.load(
        bundle,
        target=options.target,
        chip=options.chip,
        precision=options.precision,
        memory=options.memory,
    ) as pipeline:
        video = _generate(pipeline, options)
        video.save(path, fps=options.fps, scale=options.scale)
        _tell(pipeline, video, path, options)
    return 0


COMMAND = Command(
    name="generate",
    help="make a clip from a prompt",
    add_arguments=_add_arguments,
    run=_run,
)


def _generate(pipeline: Pipeline, options: argparse.Namespace) -> Video:
    tokenizer = pipeline.tokenizer
    unknown = tokenizer.unknown_words(options.prompt)
    if unknown and not tokenizer.knows_a_word(options.prompt):
        raise InputError(
            f"this model knows no word of the prompt {options.prompt[:40]!a}; use other words"
        )
    if unknown:
        shown = ", ".join(word[:24] for word in unknown[:_SHOWN_WORDS])
        more = f" and {len(unknown) - _SHOWN_WORDS} more" if len(unknown) > _SHOWN_WORDS else ""
        say(f"note: not in this model's vocabulary: {shown}{more}")
    progress = Progress()
    progress.update("loading")
    try:
        return pipeline.generate(
            options.prompt,
            num_inference_steps=options.steps,
            seed=options.seed,
            on_step=_shown_on(progress),
        )
    finally:
        progress.clear()


def _shown_on(progress: Progress) -> Callable[[Step], None]:
    def on_step(step: Step) -> None:
        bar = "#" * (20 * step.index // step.count)
        elapsed = format_seconds(step.elapsed_s)
        progress.update(f"[{bar:<20}] step {step.index}/{step.count}, {elapsed}")

    return on_step


def _tell(pipeline: Pipeline, video: Video, path: Path, options: argparse.Namespace) -> None:
    timings = video.timings
    if timings is None:
        return
    if options.json:
        document = _document(pipeline, video, timings, path)
        show_json(document | {"fps": video.fps if options.fps is None else options.fps})
        return
    choice = pipeline.selection
    kind = "/".join(part for part in (choice.target, choice.precision, choice.chip) if part)
    steps = len(timings.denoise_s)
    stages = {
        "load": timings.load_s,
        "text": timings.text_encoder_s,
        "denoise": sum(timings.denoise_s),
        "decode": timings.vae_decoder_s,
        "host": timings.host_s,
    }
    times = ", ".join(f"{name} {format_seconds(value)}" for name, value in stages.items())
    show(str(path))
    say(
        f"seed {video.seed}, {steps} step{'s' if steps > 1 else ''}, "
        f"{format_seconds(timings.total_s)} ({times}), {kind} on {timings.backend}"
    )


def _document(pipeline: Pipeline, video: Video, timings: Timings, path: Path) -> dict[str, object]:
    stages = asdict(timings)
    backend = stages.pop("backend")
    count, height, width, _ = video.frames.shape
    return {
        "path": str(path),
        "bundle": str(pipeline.bundle.path),
        "prompt": video.prompt,
        "seed": video.seed,
        "num_inference_steps": len(timings.denoise_s),
        "frames": count,
        "height": height,
        "width": width,
        "target": pipeline.selection.target,
        "precision": pipeline.selection.precision,
        "chip": pipeline.selection.chip,
        "backend": backend,
        "timings": stages,
    }


def _bundle_path(chosen: str | None) -> Path:
    named = os.environ.get("MVSDK_BUNDLE") if chosen is None else chosen
    if named == "":
        raise InputError("the bundle's name is empty; give its folder with --bundle")
    if named is not None:
        return Path(named)
    found = sorted(path for path in Path().glob("*.mvbundle") if path.is_dir())
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise InputError(f"this folder holds several bundles: {names}; choose one with --bundle")
    raise InputError(
        "no *.mvbundle in this folder, and neither --bundle nor $MVSDK_BUNDLE is given; "
        "make one with: mvsdk export --target onnx"
    )


def _check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output file before anything is computed."""
    from mvsdk.video import check_folder, check_suffix

    check_suffix(path)
    check_folder(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name, or pass --overwrite")


def _free_name(prompt: str, seed: int) -> Path:
    """Name a clip after its prompt and seed; count on where that name is taken."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].strip("-")
    stem = f"{words or 'clip'}-seed{seed}"
    path, count = Path(f"{stem}.mp4"), 1
    while path.exists():
        count += 1
        path = Path(f"{stem}-{count}.mp4")
    return path
