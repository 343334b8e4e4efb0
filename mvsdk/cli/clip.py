"""The verbs that make a clip, one for each task: options, bundle, words, progress and report."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._metadata import whole_or_not
from mvsdk._staging import writing
from mvsdk._text import quoted
from mvsdk.cli.command import (
    Command,
    add_pack_argument,
    add_program_argument,
    add_variant_arguments,
    named_path,
    packs_of,
    say_chip_notes,
    seconds,
    whole_number,
)
from mvsdk.cli.output import Progress, format_seconds, say, show, show_json
from mvsdk.errors import BundleError, InputError, OutputError
from mvsdk.tasks import TASKS, TaskSpec, find_program

if TYPE_CHECKING:
    from mvsdk.backends.isolated import Isolation
    from mvsdk.generation import Step, Timings
    from mvsdk.manifest import Task
    from mvsdk.pipeline import Pipeline
    from mvsdk.tokenizers import Tokenizer
    from mvsdk.video import Video

    Method = Callable[..., Video]
    """Makes the clip, given numbers, steps, seed and whom to tell of steps."""


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what runs, with what numbers, and what becomes of the clip."""
    add = parser.add_argument
    number = "a number of the bundle, such as guidance_scale=7"
    add("--set", dest="number", metavar="N=V", type=_number, action="append", help=number)
    # Two in one line, here and elsewhere: the help of a verb fits a screen.
    bundle = "default: $MVSDK_BUNDLE, or the one here; --pack N=DIR"
    add("--bundle", metavar="DIR", help=bundle)
    add_pack_argument(parser, help=argparse.SUPPRESS)
    add_program_argument(parser, help=argparse.SUPPRESS)
    add_variant_arguments(parser, default="the fastest that runs")
    add("--backend", metavar="B", help="what runs it (mvsdk doctor); --time-limit S per graph")
    add("--time-limit", type=seconds, metavar="S", help=argparse.SUPPRESS)
    add("--steps", type=whole_number, metavar="N", help="one of the bundle's numbers of steps")
    add("--seed", type=whole_number, default=0, metavar="N", help="0 to 2**64-1; default 0")
    add("--memory", choices=("fast", "low"), default="fast", help="low: one graph at a time")
    formats = ".mp4 .webp .gif .png .npy (--no-metadata: no prompt)"
    add("-o", "--output", type=named_path, metavar="FILE", help=formats)
    add("--no-metadata", action="store_true", help=argparse.SUPPRESS)
    add("--fps", type=float, metavar="R", help="frames per second; default: the bundle's")
    sizes = "each pixel N x N; default: 1, .mp4 to 256 a side"
    add("--scale", type=whole_number, metavar="N", help=sizes)
    more = "replace the output file; --json: a report as JSON"
    add("--overwrite", action="store_true", help=more)
    add("--json", action="store_true", help=argparse.SUPPRESS)


def _number(text: str) -> tuple[str, int | float]:
    name, _, value = text.partition("=")
    try:
        # A number that is to be whole is given as one.
        return name, int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{quoted(text, 40)} is not NAME=NUMBER") from exc


def clip_command(task: TaskSpec) -> Command:
    """Return the verb of a task."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        for item in task.arguments:
            parser.add_argument(
                item.name,
                metavar=item.name.upper(),
                type=str if item.kind == "prompt" else named_path,
                nargs=None if item.required else "?",
                help=item.help_text,
            )
        if task.negative:  # told beside another, as the help of a verb fits a screen
            parser.add_argument("--negative-prompt", metavar="TEXT", help=argparse.SUPPRESS)
        for option in task.numbers:
            parser.add_argument(
                option.flag,
                dest=option.name,
                type=whole_number if option.whole else float,
                metavar=option.metavar,
                help=option.help or argparse.SUPPRESS,
            )
        add_clip_arguments(parser)

    return Command(
        name=task.command,
        help=task.help,
        add_arguments=add_arguments,
        run=lambda options: _make_clip(options, task),
    )


def _method(
    task: TaskSpec,
    given: Mapping[str, object],
    chosen: Mapping[str, float | str | None],
    pipeline: Pipeline,
) -> Method:
    """Return what makes the clip.

    Args:
        task: The task.
        given: Arguments of the command line by name; None for those left out.
        chosen: Numbers and texts that have options of their own, likewise.
        pipeline: What runs.
    """
    if task.method is not None:
        return partial(getattr(pipeline, task.method), *given.values(), **chosen)

    def run(*, numbers: Mapping[str, float], **others: Any) -> Video:
        known_numbers = {name: x for name, x in chosen.items() if x is not None}
        by_kind = {item.name: item.kind for item in task.arguments}
        names = {
            kind: name
            for name, spec in pipeline.program.inputs.items()
            if (kind := getattr(spec, "kind", "number")) != "number"
        }
        known = {names[by_kind[x]]: value for x, value in given.items() if value is not None}
        return pipeline.run({**known, **known_numbers, **numbers}, **others)

    return run


def _make_clip(options: argparse.Namespace, task: TaskSpec) -> int:
    """Make a clip, write it and say what was done.

    Args:
        options: Values of `add_clip_arguments`, and what the task has beside them.
        task: What the bundle has to be for.

    Returns:
        Exit status.
    """
    given = {item.name: getattr(options, item.name) for item in task.arguments}
    prompt: str | None = given.get("prompt")
    named = next(given[name] for name in task.named_after if given[name] is not None)
    stem = named.stem if isinstance(named, Path) else str(named)
    chosen = {option.name: getattr(options, option.name) for option in task.numbers}
    if task.negative:
        chosen["negative_prompt"] = options.negative_prompt
    import mvsdk
    from mvsdk.bundle import Bundle
    from mvsdk.video import check_fps, check_scale

    if options.fps is not None:
        check_fps(options.fps)
    bundle = find_bundle(options.bundle, task.name)
    path: Path = options.output or _free_name(stem, options.seed)
    _check_output(path, overwrite=options.overwrite)
    if options.scale is not None:
        check_scale(options.scale)
    say_chip_notes(options.chip)
    packs = packs_of(options.pack)
    program = find_program(Bundle.open(bundle, packs=packs).manifest, task.name, options.program)
    with mvsdk.load(
        bundle,
        backend=options.backend,
        target=options.target,
        chip=options.chip,
        precision=options.precision,
        format=options.format,
        program=program.name,
        packs=packs,
        clips=1,  # a person waits for the whole command
        memory=options.memory,
        isolated=_isolation(options.time_limit),
    ) as pipeline:
        _say_if_slow(options, pipeline)
        if prompt is not None:
            _check_words(pipeline.tokenizer(), prompt)
        numbers = _numbers(options, pipeline)
        video = _make_with_progress(options, _method(task, given, chosen, pipeline), numbers)
        metadata = not options.no_metadata
        video.save(path, fps=options.fps, scale=options.scale, metadata=metadata)
        for note in video.notes:
            say(f"note: {note}")
        if video.timings is not None:
            fps = video.fps if options.fps is None else options.fps
            if options.json:
                document = {"path": str(path), "bundle": str(pipeline.bundle.path)}
                document |= {name: str(x) for name, x in given.items() if x is not None}
                show_json(document | _facts(pipeline, video, video.timings) | {"fps": fps})
            else:
                show(str(path))
                say(_summary(pipeline, video, video.timings))
                if options.scale is None:
                    _say_small(path, video)
    return 0


_SHOWN_WORDS = 5
_SHOWN_AS_THEY_ARE = frozenset({".webp", ".gif"})
_SMALL = 128
_CHOICES = ("backend", "target", "format", "chip", "precision")
"""Options that say which variant runs, and on what."""


def find_bundle(chosen: str | None, task: Task) -> Path:
    """Return the bundle that is named, or the only one in the working folder for a task.

    Args:
        chosen: Value of `--bundle`; None looks at `$MVSDK_BUNDLE`, then into the folder.
        task: Decides between several bundles of the folder.

    Raises:
        InputError: If the name is empty, or nothing decides.
    """
    named = os.environ.get("MVSDK_BUNDLE") if chosen is None else chosen
    if named == "":
        where = "--bundle" if chosen is not None else "$MVSDK_BUNDLE"
        raise InputError(f"the bundle's name is empty in {where}; give its folder with --bundle")
    if named is not None:
        return Path(named)
    found = sorted(path for path in Path().glob("*.mvbundle") if path.is_dir())
    fitting = found if len(found) == 1 else [path for path in found if _may_be_for(path, task)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(path.name for path in fitting or found)
    if fitting:
        raise InputError(f"this folder holds several bundles: {names}; choose one with --bundle")
    if found:
        raise InputError(
            f"no bundle in this folder is for {task}: {names}; choose with --bundle, or make one "
            f"with: {TASKS[task].export}"
        )
    raise InputError(
        "no *.mvbundle in this folder, and neither --bundle nor $MVSDK_BUNDLE is given; "
        f"make one with: {TASKS[task].export}"
    )


def _may_be_for(path: Path, task: Task) -> bool:
    """Return whether a bundle is for a task, or does not open, which its user is to hear of."""
    from mvsdk.bundle import Bundle

    try:
        programs = Bundle.open(path).manifest.programs
    except BundleError:
        return True
    return any(program.task == task for program in programs)


def _isolation(limit_s: float | None) -> Isolation:
    """Return what a limit asks for: without one, backends that damaged graphs can end are isolated.

    Args:
        limit_s: How long a graph may load, and how long it may run each time; seconds.
    """
    from mvsdk._arguments import check_number
    from mvsdk.backends.isolated import LEAST_LIMIT_S, MOST_LIMIT_S, Isolation

    if limit_s is None:
        return Isolation(which="fragile")
    check_number("--time-limit", limit_s, low=LEAST_LIMIT_S, high=MOST_LIMIT_S)
    return Isolation(load_timeout_s=limit_s, run_timeout_s=limit_s)


def _say_if_slow(options: argparse.Namespace, pipeline: Pipeline) -> None:
    """Name what is fast where something slow was chosen, unless the user chose it."""
    from mvsdk.backends import slow_note

    if any(getattr(options, name) is not None for name in _CHOICES):
        return
    if note := slow_note(pipeline.bundle, pipeline.selection):
        say(f"note: {note}")


def _check_words(tokenizer: Tokenizer, prompt: str) -> None:
    """Say which words the model does not know; refuse a prompt of none that it does."""
    unknown = tokenizer.unknown_words(prompt)
    if unknown and not tokenizer.knows_a_word(prompt):
        raise InputError(
            f"this model knows no word of the prompt {quoted(prompt, 40)}; use other words"
        )
    if unknown:
        shown = ", ".join(word[:24] for word in unknown[:_SHOWN_WORDS])
        more = f" and {len(unknown) - _SHOWN_WORDS} more" if len(unknown) > _SHOWN_WORDS else ""
        say(f"note: not in this model's vocabulary: {shown}{more}")


def _numbers(options: argparse.Namespace, pipeline: Pipeline) -> dict[str, float]:
    """Return the numbers that are given, the frames per second too if the clip is made for them."""
    numbers: dict[str, float] = dict(options.number or ())
    if options.fps is not None and "fps" in pipeline.number_inputs:
        if "fps" in numbers:
            raise InputError("fps is given by --set and by --fps; leave one out")
        numbers["fps"] = options.fps
    return numbers


def _make_with_progress(
    options: argparse.Namespace, make: Callable[..., Video], numbers: Mapping[str, float]
) -> Video:
    progress = Progress()

    def on_step(step: Step) -> None:
        bar = "#" * (20 * step.index // step.count)
        elapsed = format_seconds(step.elapsed_s)
        progress.update(f"[{bar:<20}] step {step.index}/{step.count}, {elapsed}")

    progress.update("loading")
    try:
        return make(
            numbers=numbers,
            num_inference_steps=options.steps,
            seed=options.seed,
            on_step=on_step,
        )
    finally:
        progress.clear()


def _summary(pipeline: Pipeline, video: Video, timings: Timings) -> str:
    steps = len(timings.denoise_s)
    stages = {
        "load": timings.load_s,
        "encode": timings.encode_s,
        "denoise": sum(timings.denoise_s),
        "decode": timings.vae_decoder_s,
        "host": timings.host_s,
    }
    times = ", ".join(f"{name} {format_seconds(value)}" for name, value in stages.items())
    motion = f"motion {video.numbers['motion']:g}, " if "motion" in video.numbers else ""
    where = f"{pipeline.selection.label} on {timings.backend}"
    return (
        f"seed {video.seed}, {motion}{steps} step{'' if steps == 1 else 's'}, "
        f"{format_seconds(timings.total_s)} ({times}), {where}"
    )


def _say_small(path: Path, video: Video) -> None:
    """Tell of a clip that nobody will see much of: only .mp4 is enlarged unless told."""
    height, width = video.frames.shape[1:3]
    if path.suffix.lower() in _SHOWN_AS_THEY_ARE and max(height, width) <= _SMALL:
        say(f"note: {path} has {width} x {height} pixels; --scale 4 makes it larger")


def _facts(pipeline: Pipeline, video: Video, timings: Timings) -> dict[str, object]:
    stages = asdict(timings)
    backend = stages.pop("backend")
    count, height, width, _ = video.frames.shape
    numbers = {name: whole_or_not(value) for name, value in video.numbers.items()}
    return {
        "seed": video.seed,
        **({"numbers": numbers} if numbers else {}),
        "num_inference_steps": video.num_inference_steps,
        "frames": count,
        "height": height,
        "width": width,
        "set": pipeline.selection.id,
        **asdict(pipeline.selection.key),
        "backend": backend,
        "bundle_sha256": video.bundle_sha256,
        "timings": stages,
    }


def _check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output file before anything is computed."""
    from mvsdk.video import check_folder, check_suffix

    check_suffix(path)
    check_folder(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{quoted(path)} exists; choose another name, or pass --overwrite")
    _check_name(path)


def _check_name(path: Path) -> None:
    """Refuse a name that the disk does not take, such as `a:b.mp4` on FAT, by trying it."""
    if not os.path.lexists(path):
        with writing(path):
            try:
                path.open("xb").close()
            finally:  # of a signal between the two, too
                path.unlink(missing_ok=True)


def _free_name(stem: str, seed: int) -> Path:
    """Name a clip after what it is made of and its seed; count on where that name is taken."""
    words = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:48].strip("-")
    stem = f"{words or 'clip'}-seed{seed}"
    path, count = Path(f"{stem}.mp4"), 1
    while path.exists():
        count += 1
        path = Path(f"{stem}-{count}.mp4")
    return path
