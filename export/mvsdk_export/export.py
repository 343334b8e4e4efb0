"""From a model folder to a verified bundle: trace, calibrate, quantise, compile, verify, write.

Every verb is a stage (stages.py). The bundle is put together in a hidden folder beside its place,
verified there by the runtime that will open it, and only then gets its name, so that no bundle
that failed its own checks is ever seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.manifest import END_TO_END, Verification
from mvsdk_export.assemble import Key, add_files
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.errors import ExportError
from mvsdk_export.families.pipeline import check_pipeline, make_pipeline, sizes_of
from mvsdk_export.jobs.history import History
from mvsdk_export.jobs.progress import OnProgress, Tracker
from mvsdk_export.jobs.runner import Run, Stage, StageRunner, seconds_of
from mvsdk_export.parity.pictures import check_pictures
from mvsdk_export.parity.recording import (
    Recording,
    calibration_of,
    digest_of,
    hash_of,
    make_pictures,
    numbers_by_prompt,
    plan_recording,
    record,
    verification_of,
)
from mvsdk_export.parity.verify import check_parity, find_backends
from mvsdk_export.planning.costs import ComponentCosts, measure_recipe
from mvsdk_export.planning.decoding import with_decode_frames
from mvsdk_export.planning.disk_space import check_room, estimate_calibration_bytes
from mvsdk_export.planning.preflight import check_findings, count_parts, preflight_costs
from mvsdk_export.planning.request import ExportRequest, needs_calls
from mvsdk_export.targets.coreml.tools import check_tensor_names
from mvsdk_export.targets.lowering import (
    Lowering,
    Source,
    lower_graphs,
    lower_networks,
    trace_graphs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made."""

    bundle: Bundle
    stages: tuple[Stage, ...]
    seconds: Mapping[str, float]
    """Set id -> seconds of all that it took, with what it shares with others."""
    compression: Mapping[str, Mapping[str, Any]]
    """Set id -> component -> how many weights or layers are stored how, where that differs."""
    warnings: Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]]
    """Set id -> component -> limits of the phone's processor that a graph is beyond."""


ASSEMBLY = "put the bundle together"
CALIBRATION = "calibrate"
REFERENCE = "run the reference"
"""Names of stages; those of the others say what they are about."""

_PLANNED = Stage(
    name="",
    key="",
    folder=Path(),
    result={"inputs": [], "outputs": []},
    seconds=0.0,
    peak_bytes=0,
    reused=False,
)
"""Stands for any stage where only their names are wanted."""


def plan_stages(request: ExportRequest, costs: Sequence[ComponentCosts]) -> tuple[str, ...]:
    """Return the names of all stages of an export, in order.

    Args:
        request: What to export.
        costs: As `check_request` returns them.
    """
    names: list[str] = []

    def note(name: str, function: str, **options: Any) -> Stage:
        del function, options
        names.append(name)
        return _PLANNED

    def calibrate() -> Stage:
        names.extend(plan_recording(CALIBRATION, request.folder, request.pictures))
        return _PLANNED

    lowerings = plan_lowerings(request, costs)
    _make_graphs(request, lowerings, note, calibrate, outside={})
    names.append(ASSEMBLY)
    if request.verify:
        sets = [item.id for item in request.sets]
        names += _plan_verification(request.folder, request.pictures, sets)
    return tuple(names)


def plan_lowerings(request: ExportRequest, costs: Sequence[ComponentCosts]) -> list[Lowering]:
    """Return what is made of each component; those with too many weights are cut into parts."""
    return [
        Lowering(
            component=request.folder.recipe.component(item.component),
            plans=request.plans_of(item.component),
            parts=count_parts(item, request.part_bytes),
            floors_db={
                precision: floors[item.component]
                for precision, floors in request.folder.recipe.floors_db.items()
            },
        )
        for item in costs
    ]


def check_request(request: ExportRequest) -> tuple[ComponentCosts, ...]:
    """Refuse before any work, and before any weight is read, what cannot end well.

    Returns:
        What the components will cost.

    Raises:
        OutputError: If the output exists, or is no place for a bundle.
        CheckpointError: If configuration, weights and vocabulary do not fit.
        InputError: If there are too few pictures in a folder of them, or one cannot be read.
        ScheduleError: If the scheduler has no noise levels for a wanted number of steps.
        ExportError: If a graph is too large for the target, or no bundle can hold what the recipe
            makes.
    """
    BundleWriter(request.out, overwrite=request.overwrite)
    _check_recipe(request)
    request = with_decode_frames(request)
    folder = request.folder
    folder.check(num_frames=request.num_frames)
    pipeline = make_pipeline(folder, request.clip)
    if request.pictures is not None:
        check_pictures(request.pictures)
    costs = _measure(request)
    if request.chips:
        check_findings(
            preflight_costs(
                costs,
                precisions=request.chip_precisions,
                chips=request.chips,
                part_bytes=request.part_bytes,
            )
        )
    check_pipeline(folder.recipe, pipeline, sizes_of(folder, request.clip))
    return costs


def _check_recipe(request: ExportRequest) -> None:
    """Refuse what the recipe, which may be another package's, cannot be made in.

    Raises:
        ExportError: If it has no floors for a precision, or names that a format does not take.
    """
    recipe = request.folder.recipe
    for part in recipe.components:
        for plan in request.plans_of(part.name):
            if "coreml" in (plan.format, plan.delegate):
                check_tensor_names(part.name, [item.name for item in (*part.inputs, *part.outputs)])
            floors = recipe.floors_db.get(plan.precision, {})
            if not {part.name, END_TO_END} <= floors.keys():
                known = ", ".join(name for name, x in recipe.floors_db.items() if part.name in x)
                raise ExportError(
                    f"the recipe {recipe.name} has no floors of {part.name} for {plan.precision}, "
                    f"only for {known or 'nothing'}; add them to floors_db, or choose another "
                    "precision"
                )


def _measure(request: ExportRequest) -> tuple[ComponentCosts, ...]:
    folder = request.folder
    return measure_recipe(
        folder.recipe, folder.configs(), **request.size, guidance=request.folded_guidance
    )


def export(
    request: ExportRequest,
    runner: StageRunner,
    on_progress: OnProgress,
    *,
    history: History | None = None,
) -> ExportReport:
    """Make a bundle.

    Args:
        request: What to export.
        runner: Runs the stages; holds what an earlier run finished.
        on_progress: Told where the export is, from this thread.
        history: What stages took in earlier runs; None estimates nothing.

    Raises:
        OutputError: If the output exists, or cannot be written; before any work.
        CheckpointError: If a weight file is damaged, or the folder does not fit together.
        ScheduleError: As `check_request`.
        ExportError: If a stage fails, or the disk has no room for what calibrates.
        ParityError: If a variant misses a floor; nothing is written then.
    """
    request = with_decode_frames(request)
    costs = check_request(request)
    lowerings = plan_lowerings(request, costs)
    clips = len(calibration_of(request).prompts)
    needed_bytes = estimate_calibration_bytes(request, costs, lowerings, clips)
    check_room(needed_bytes, runner.cache_folder)
    tracker = Tracker(
        plan_stages(request, costs),
        on_progress,
        history or History(None),
        _subject_of(request.folder, request.size, request.steps),
    )
    run = _tracked(runner, tracker)
    with BundleWriter(request.out, overwrite=request.overwrite) as writer:
        outside = {"paths": request.folder.paths, "fingerprint": hash_of(request.folder)}
        artefacts = _make_graphs(
            request,
            lowerings,
            run,
            lambda: _calibrate(run, calibration_of(request)),
            outside,
        )
        with tracker.stage(ASSEMBLY):
            manifest = add_files(writer, request, costs, artefacts)
        if request.verify:
            unnamed = writer.preview(manifest)
            records = _verify(unnamed, request.folder, run, request.pictures)
            check_parity(records)
            manifest = replace(manifest, verification=tuple(records))
        bundle = writer.commit(manifest)
    made = {
        item.id: {name: artefacts[name, plan.id] for name, plan in item.plans.items()}
        for item in request.sets
    }
    return ExportReport(
        bundle=bundle,
        stages=tuple(runner.finished),
        seconds={name: seconds_of(list(stages.values())) for name, stages in made.items()},
        compression={name: found for name, x in made.items() if (found := _compression(x))},
        warnings={name: found for name, x in made.items() if (found := _warnings(x))},
    )


def _calibrate(run: Run, recording: Recording) -> Stage:
    return record(run, CALIBRATION, recording, make_pictures(run, recording))


def _tracked(runner: StageRunner, tracker: Tracker) -> Run:
    """Return what runs stages and tells where they are."""

    def run(name: str, function: str, **options: Any) -> Stage:
        with tracker.stage(name) as clock:
            stage = runner.run(name, function, on_items=clock.tell, **options)
            clock.found = stage.reused
        return stage

    return run


def _subject_of(folder: ModelFolder, size: Mapping[str, int], steps: Sequence[int]) -> str:
    """Return what tells a model and what is made of it from others, in estimates of time."""
    networks = digest_of([repr(sorted(folder.configs().items()))])
    return f"{folder.recipe.name} {networks[:12]} {list(size.values())} {sorted(steps)}"


def _compression(stages: Mapping[str, Stage]) -> dict[str, Any]:
    """Return what the stages of a variant, or those that they read, say of their weights."""
    found: dict[str, Any] = {}
    for component, stage in stages.items():
        for made in (stage, *stage.needs):
            if "schemes" in made.result:
                found[component] = {k: made.result[k] for k in ("bits", "sqnr_db", "schemes")}
    return found


def _warnings(stages: Mapping[str, Stage]) -> dict[str, Any]:
    return {
        component: found
        for component, stage in stages.items()
        if (found := stage.result.get("warnings"))
    }


def _make_graphs(
    request: ExportRequest,
    lowerings: Sequence[Lowering],
    run: Run,
    calibrate: Callable[[], Stage],
    outside: Mapping[str, Any],
) -> dict[Key, Stage]:
    """Return what is shipped, by component and variant.

    Args:
        request: What is exported.
        lowerings: What is made of each component.
        run: Runs the stages.
        calibrate: Runs the one that records calls of the reference.
        outside: Paths and fingerprint of the model folder, as `StageRunner.run` takes them.
    """
    traced = [
        trace_graphs(run, lowering, _subject(request, lowering.component.name), outside)
        for lowering in lowerings
    ]
    recorded: Stage | None = None
    if any(needs_calls(plan) for plan in request.plans):
        recorded = calibrate()
    made: dict[Key, Stage] = {}
    for lowering, graphs in zip(lowerings, traced, strict=True):
        name = lowering.component.name
        source = Source(
            subject=_subject(request, name),
            outside=outside,
            apple=request.apple,
            executorch=request.executorch,
        )
        found = lower_networks(run, lowering, source, recorded)
        found |= lower_graphs(run, lowering, graphs, recorded)
        made |= {(name, variant): stage for variant, stage in found.items()}
    return made


def _subject(request: ExportRequest, component: str) -> dict[str, Any]:
    """Return which graph of which size is lowered, as functions of the toolchain take it."""
    return {"component": component, **request.size, "guidance": request.folded_guidance}


def verify_bundle(
    bundle: Bundle,
    folder: ModelFolder,
    runner: StageRunner,
    on_progress: OnProgress,
    *,
    pictures: Path | None = None,
    history: History | None = None,
) -> list[Verification]:
    """Hold every set of variants of a bundle to the reference.

    Args:
        bundle: Bundle to verify.
        folder: The model folder that it was made of.
        runner: Runs the stages.
        on_progress: Told where the verification is, from this thread.
        pictures: Folder of pictures to verify with; None for those that recipes name.
        history: What stages took in earlier runs; None estimates nothing.

    Raises:
        InputError: If a picture cannot be read; before any work.
        ExportError: If nothing here runs a variant of a set; before any work. If a stage fails.
    """
    if pictures is not None:
        check_pictures(pictures)
    manifest = bundle.manifest
    for item in manifest.sets:
        find_backends(manifest.variants_of(item))
    recording = verification_of(manifest, folder, pictures)
    tracker = Tracker(
        _plan_verification(folder, pictures, [item.id for item in manifest.sets]),
        on_progress,
        history or History(None),
        _subject_of(folder, recording.size, recording.steps),
    )
    return _verify(bundle, folder, _tracked(runner, tracker), pictures)


def _plan_verification(
    folder: ModelFolder, pictures: Path | None, variants: Sequence[str]
) -> list[str]:
    """Return the names of the stages of `_verify`, in order."""
    return [
        *plan_recording(REFERENCE, folder, pictures),
        *(f"verify {variant}" for variant in variants),
    ]


def _verify(
    bundle: Bundle, folder: ModelFolder, run: Run, pictures: Path | None
) -> list[Verification]:
    """Run the stages of a verification; see `verify_bundle`.

    The emulator takes seconds for what ONNX Runtime does in milliseconds, so each chip gets one of
    the prompts in turn; other variants get them all.
    """
    recipe, manifest = folder.recipe, bundle.manifest
    recording = verification_of(manifest, folder, pictures)
    prompts = recording.prompts
    pictures_made = make_pictures(run, recording)
    recorded = record(run, REFERENCE, recording, pictures_made)
    needs = {"recorded": recorded}
    if pictures_made is not None:
        needs["pictures"] = pictures_made
    content = digest_of([replace(manifest, verification=()).to_json().decode()])
    records: dict[Verification, None] = {}
    for index, item in enumerate(manifest.sets):
        variants = manifest.variants_of(item).values()
        is_slow = any(variant.chip for variant in variants)
        chosen = [prompts[index % len(prompts)]] if is_slow else list(prompts)
        stage = run(
            f"verify {item.id}",
            "verify",
            arguments={
                "chosen": item.id,
                "prompts": chosen,
                "numbers": numbers_by_prompt(recording),
                "recipe": recipe.name,
            },
            needs=needs,
            paths={"bundle": bundle.path},
            fingerprint=content,
        )
        rows: list[dict[str, Any]] = stage.result["records"]
        records |= dict.fromkeys(Verification(**row) for row in rows)
    return list(records)
