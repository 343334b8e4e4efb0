"""From a model folder to a verified bundle: trace, calibrate, quantise, compile, verify, write.

Every verb is a stage (stages.py). The bundle is put together in a hidden folder beside its place,
verified there by the runtime that will open it, and only then gets its name, so that no bundle
that failed its own checks is ever seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvsdk.bundle import Bundle, BundleWriter, sha256_file
from mvsdk.conditioning import (
    ADDED_TIME_IDS,
    MAX_FPS,
    MAX_MOTION,
    MAX_NOISE,
    MIN_FPS,
    MicroConditioning,
)
from mvsdk.manifest import Manifest, Verification
from mvsdk_export.assemble import Key, add_files, read_guidance
from mvsdk_export.checkpoints import ModelFolder, default_model_folder, open_model
from mvsdk_export.costs import ComponentCosts, measure_recipe
from mvsdk_export.decoding import with_decode_frames
from mvsdk_export.lowering import Lowering, Source, lower_graphs, lower_networks, trace_graphs
from mvsdk_export.pictures import PAINTER, PictureFiles, check_pictures, find_pictures
from mvsdk_export.preflight import check_findings, count_parts, preflight_costs
from mvsdk_export.request import ExportRequest, needs_calls
from mvsdk_export.room import check_room, estimate_calibration_bytes
from mvsdk_export.schedule import make_sampler
from mvsdk_export.stages import Run, Stage, StageRunner, seconds_of
from mvsdk_export.verify import check_parity

CALIBRATION_SEED = 1000
VERIFICATION_SEED = 7

LEAST_CONDITIONING = MicroConditioning(fps=MIN_FPS, motion=0, noise_aug_strength=0.0)
MOST_CONDITIONING = MicroConditioning(fps=MAX_FPS, motion=MAX_MOTION, noise_aug_strength=MAX_NOISE)
"""Ends of what may be said beside a picture. Calibration sees both: beyond the range that it saw,
an option would do nothing in a quantised graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made."""

    bundle: Bundle
    stages: tuple[Stage, ...]
    seconds: Mapping[str, float]
    """Variant id -> seconds of all that it took, with what it shares with others."""
    compression: Mapping[str, Mapping[str, Any]]
    """Variant id -> component -> how many weights or layers are stored how, where that differs."""
    warnings: Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]]
    """Variant id -> component -> limits of the phone's processor that a graph is beyond."""


OnStage = Callable[[str], None]
"""Told the name of every stage before it starts, and "" after the last."""


def count_stages(request: ExportRequest) -> int:
    """Return how many stages an export has, for progress bars."""
    recipe = request.folder.recipe
    made = sum(
        len(lowering.traces) + lowering.count_stages()
        for lowering in plan_lowerings(request, _measure(request))
    )
    calibrated = any(needs_calls(plan) for plan in request.variants)
    pictures = int(recipe.task == "image_to_video")
    recorded = (1 + pictures) * (int(calibrated) + int(request.verify))
    verified = len(request.variants) if request.verify else 0
    return made + recorded + verified + 1


def plan_lowerings(request: ExportRequest, costs: Sequence[ComponentCosts]) -> list[Lowering]:
    """Return what is made of each component; those with too many weights are cut into parts."""
    return [
        Lowering(
            component=request.folder.recipe.component(item.component),
            plans=request.variants,
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
        ExportError: If a graph is too large for the target.
    """
    BundleWriter(request.out, overwrite=request.overwrite)
    request = with_decode_frames(request)
    folder = request.folder
    folder.check(num_frames=request.num_frames)
    make_sampler(folder.scheduler, request.steps, request.default_steps)
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
    return costs


def _measure(request: ExportRequest) -> tuple[ComponentCosts, ...]:
    folder = request.folder
    return measure_recipe(
        folder.recipe, folder.configs(), **request.size, guidance=request.folded_guidance
    )


def export(request: ExportRequest, runner: StageRunner, on_stage: OnStage) -> ExportReport:
    """Make a bundle.

    Args:
        request: What to export.
        runner: Runs the stages; holds what an earlier run finished.
        on_stage: Progress.

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
    clips = len(_calibration(request).prompts)
    needed_bytes = estimate_calibration_bytes(request, costs, lowerings, clips)
    check_room(needed_bytes, runner.cache_folder)
    with BundleWriter(request.out, overwrite=request.overwrite) as writer:
        artefacts = _make_graphs(request, lowerings, runner, on_stage)
        on_stage("put the bundle together")
        manifest = add_files(writer, request, costs, artefacts)
        if request.verify:
            unnamed = writer.preview(manifest)
            records = verify_bundle(
                unnamed, request.folder, runner, on_stage, pictures=request.pictures
            )
            check_parity(records)
            manifest = replace(manifest, verification=tuple(records))
        bundle = writer.commit(manifest)
        on_stage("")
    made = {plan.id: _of_variant(artefacts, plan.id) for plan in request.variants}
    return ExportReport(
        bundle=bundle,
        stages=tuple(runner.finished),
        seconds={name: seconds_of(list(stages.values())) for name, stages in made.items()},
        compression={name: found for name, x in made.items() if (found := _compression(x))},
        warnings={name: found for name, x in made.items() if (found := _warnings(x))},
    )


def _of_variant(artefacts: Mapping[Key, Stage], variant: str) -> dict[str, Stage]:
    return {component: stage for (component, name), stage in artefacts.items() if name == variant}


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
    runner: StageRunner,
    on_stage: OnStage,
) -> dict[Key, Stage]:
    """Return what is shipped, by component and variant."""
    folder = request.folder
    outside: dict[str, Any] = {"paths": folder.paths, "fingerprint": hash_of(folder)}

    def run(name: str, function: str, **options: Any) -> Stage:
        on_stage(name)
        return runner.run(name, function, **options)

    traced = [
        trace_graphs(run, lowering, _subject(request, lowering.component.name), outside)
        for lowering in lowerings
    ]
    recorded: Stage | None = None
    if any(needs_calls(plan) for plan in request.variants):
        recorded = _record(run, "calibrate", _calibration(request))
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
    on_stage: OnStage,
    *,
    pictures: Path | None = None,
) -> list[Verification]:
    """Hold every set of variants of a bundle to the reference.

    The emulator takes seconds for what ONNX Runtime does in milliseconds, so each chip gets one of
    the prompts in turn; other variants get them all.

    Args:
        bundle: Bundle to verify.
        folder: The model folder that it was made of.
        runner: Runs the stages.
        on_stage: Progress.
        pictures: Folder of pictures to verify with; None for those that recipes name.
    """

    def run(name: str, function: str, **options: Any) -> Stage:
        on_stage(name)
        return runner.run(name, function, **options)

    recipe, manifest = folder.recipe, bundle.manifest
    recording = _verification(manifest, folder, pictures)
    prompts = recording.prompts
    recorded = _record(run, "run the reference", recording)
    content = _digest([replace(manifest, verification=()).to_json().decode()])
    variants = next(iter(manifest.components.values())).variants
    records: list[Verification] = []
    for index, variant in enumerate(variants):
        chosen = [prompts[index % len(prompts)]] if variant.chip else list(prompts)
        stage = run(
            f"verify {variant.id}",
            "verify",
            arguments={"variant": variant.id, "prompts": chosen, "recipe": recipe.name},
            needs={"recorded": recorded},
            paths={"bundle": bundle.path},
            fingerprint=content,
        )
        rows: list[dict[str, Any]] = stage.result["records"]
        records += [Verification(**row) for row in rows]
    return records


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    """Clips that the reference shall make."""

    folder: ModelFolder
    size: Mapping[str, int]
    guidance: tuple[float, float] | None
    steps: Sequence[int]
    default_steps: int
    prompts: Sequence[str]
    pictures: Path | None
    """Folder of the pictures that the prompts name; None if they are to be painted."""
    conditioning: Sequence[MicroConditioning]
    """What is said beside each picture in turn; empty for models that take prompts."""
    first_seed: int


def _calibration(request: ExportRequest) -> _Recording:
    files = _find_pictures(request.pictures)
    return _Recording(
        folder=request.folder,
        size=request.size,
        guidance=request.folded_guidance,
        steps=request.steps,
        default_steps=request.default_steps,
        prompts=files.calibration if files else request.folder.recipe.calibration_prompts,
        pictures=request.pictures,
        conditioning=[
            changed
            for usual in _conditioning(request.folder.recipe.conditioning)
            for changed in (usual, LEAST_CONDITIONING, usual, MOST_CONDITIONING)
        ],
        first_seed=CALIBRATION_SEED,
    )


def _verification(manifest: Manifest, folder: ModelFolder, pictures: Path | None) -> _Recording:
    files = _find_pictures(pictures)
    video, sampler = manifest.video, manifest.sampler
    return _Recording(
        folder=folder,
        size={
            "num_frames": video.frames,
            "height": video.height,
            "width": video.width,
            "decode_frames": manifest.decode_frames,
        },
        guidance=read_guidance(manifest),
        steps=sorted(sampler.schedules),
        default_steps=sampler.default_steps,
        prompts=files.verification if files else folder.recipe.verification_prompts,
        pictures=pictures,
        conditioning=[
            changed
            for usual in _conditioning(sampler.conditioning)
            for changed in (usual, usual.changed(motion=MAX_MOTION))
        ],
        first_seed=VERIFICATION_SEED,
    )


def _conditioning(numbers: Mapping[str, Sequence[float]]) -> list[MicroConditioning]:
    """Return what is said beside a picture by default; none for models that take prompts."""
    values = numbers.get(ADDED_TIME_IDS)
    return [] if values is None else [MicroConditioning.from_added_time_ids(values)]


def _find_pictures(folder: Path | None) -> PictureFiles | None:
    return None if folder is None else find_pictures(folder)


def _record(run: Run, name: str, recording: _Recording) -> Stage:
    """Run the reference, after the pictures were made that it needs."""
    folder = recording.folder
    needs: dict[str, Stage] = {}
    if folder.recipe.task == "image_to_video":
        needs["pictures"] = _make_pictures(run, recording)
    return run(
        name,
        "record",
        arguments={
            **recording.size,
            "guidance": recording.guidance,
            "steps": list(recording.steps),
            "default_steps": recording.default_steps,
            "prompts": list(recording.prompts),
            "first_seed": recording.first_seed,
            "conditioning": [x.to_added_time_ids() for x in recording.conditioning],
        },
        needs=needs,
        paths=folder.paths,
        fingerprint=hash_of(folder),
    )


def _make_pictures(run: Run, recording: _Recording) -> Stage:
    names = list(recording.prompts)
    size = {side: recording.size[side] for side in ("height", "width")}
    if recording.pictures is not None:
        content = [sha256_file(recording.pictures / name) for name in names]
        return run(
            "read pictures",
            "read",
            arguments={"names": names, **size},
            paths={"folder": recording.pictures},
            fingerprint=_digest(content),
        )
    painter = open_model(default_model_folder(PAINTER))
    return run(
        "paint pictures",
        "paint",
        arguments={"prompts": names, **size},
        paths={"painter": painter.path},
        fingerprint=hash_of(painter),
    )


def hash_of(folder: ModelFolder) -> str:
    """Return the hash of all files that a model consists of."""
    return _digest([ref.sha256 for ref in folder.files_with_hashes()])


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
