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
from typing import Any

from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.manifest import Precision, Verification
from mvsdk_export.assemble import Key, add_files
from mvsdk_export.checkpoints import ModelFolder, load_configs
from mvsdk_export.costs import measure_recipe
from mvsdk_export.preflight import check_findings, preflight_costs
from mvsdk_export.request import ExportRequest, source_precision
from mvsdk_export.schedule import make_sampler
from mvsdk_export.stages import Stage, StageRunner
from mvsdk_export.verify import check_parity

CALIBRATION_SEED = 1000
VERIFICATION_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made."""

    bundle: Bundle
    stages: tuple[Stage, ...]


OnStage = Callable[[str], None]
"""Told the name of every stage before it starts, and "" after the last."""


def count_stages(request: ExportRequest) -> int:
    """Return how many stages an export has, for progress bars."""
    components = len(request.folder.recipe.components)
    sources = len({source_precision(plan) for plan in request.variants})
    compiled = sum(plan.target == "snapdragon" for plan in request.variants)
    quantised = any(plan.precision == "w8a16" for plan in request.variants)
    per_component = 1 + sources + compiled
    verified = 1 + len(request.variants) if request.verify else 0
    return components * per_component + int(quantised) + verified + 1


def check_request(request: ExportRequest) -> None:
    """Refuse before any work, and before any weight is read, what cannot end well.

    Raises:
        OutputError: If the output exists, or is no place for a bundle.
        CheckpointError: If configuration, weights and vocabulary do not fit.
        ScheduleError: If the scheduler has no noise levels for a wanted number of steps.
        ExportError: If a graph is too large for the target.
    """
    BundleWriter(request.out, overwrite=request.overwrite)
    folder = request.folder
    folder.check(num_frames=request.num_frames)
    make_sampler(folder.scheduler, request.steps, request.default_steps)
    costs = measure_recipe(folder.recipe, load_configs(folder.path, folder.recipe), **request.size)
    check_findings(
        preflight_costs(costs, precisions=request.precisions, chips=request.chips)
        if request.chips
        else ()
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
        ExportError: If a stage fails.
        ParityError: If a variant misses a floor; nothing is written then.
    """
    check_request(request)
    with BundleWriter(request.out, overwrite=request.overwrite) as writer:
        sources, stages = _make_graphs(request, runner, on_stage)
        on_stage("put the bundle together")
        manifest = add_files(writer, request, sources, stages)
        if request.verify:
            unnamed = writer.preview(manifest)
            records = verify_bundle(unnamed, request.folder, runner, on_stage)
            check_parity(records)
            manifest = replace(manifest, verification=tuple(records))
        bundle = writer.commit(manifest)
        on_stage("")
    return ExportReport(bundle=bundle, stages=tuple(runner.finished))


def _make_graphs(
    request: ExportRequest, runner: StageRunner, on_stage: OnStage
) -> tuple[dict[Key, Stage], dict[Key, Stage]]:
    """Return the ONNX models by precision, and the artefacts by variant."""
    outside: dict[str, Any] = {
        "paths": {"model": request.folder.path},
        "fingerprint": _weights_hash(request.folder),
    }
    traced: dict[str, Stage] = {}

    def run(name: str, function: str, **options: Any) -> Stage:
        on_stage(name)
        return runner.run(name, function, **options)

    for part in request.folder.recipe.components:
        recipe = request.folder.recipe.name
        arguments = {"recipe": recipe, "component": part.name, **request.size}
        traced[part.name] = run(f"trace {part.name}", "trace", arguments=arguments, **outside)
    recorded: Stage | None = None
    if any(plan.precision == "w8a16" for plan in request.variants):
        prompts = request.folder.recipe.calibration_prompts
        arguments = _recording(
            request.folder,
            request.size,
            request.steps,
            request.default_steps,
            prompts,
            CALIBRATION_SEED,
        )
        recorded = run("calibrate", "record", arguments=arguments, **outside)
    models: dict[Key, Stage] = {}
    artefacts: dict[Key, Stage] = {}
    for part in request.folder.recipe.components:
        for plan in request.variants:
            precision = source_precision(plan)
            if (part.name, precision) not in models:
                models[part.name, precision] = _make_model(
                    run, request, part.name, precision, traced[part.name], recorded
                )
            source = models[part.name, precision]
            if plan.chipset is not None:
                source = run(
                    f"compile {part.name} {plan.precision} for {plan.chipset.slug}",
                    "compile_chip",
                    arguments={
                        "chip": plan.chipset.slug,
                        "float16": plan.precision == "fp16",
                    },
                    needs={"source": source},
                )
            artefacts[part.name, plan.id] = source
    return models, artefacts


def _make_model(
    run: Callable[..., Stage],
    request: ExportRequest,
    component: str,
    precision: Precision,
    traced: Stage,
    recorded: Stage | None,
) -> Stage:
    arguments = {"component": component, "recipe": request.folder.recipe.name}
    if precision == "w8a16":
        needs = {"traced": traced, "recorded": recorded}
        return run(f"quantise {component}", "quantize", arguments=arguments, needs=needs)
    return run(
        f"finish {component} {precision}",
        "finish",
        arguments={**arguments, "precision": precision},
        needs={"traced": traced},
    )


def verify_bundle(
    bundle: Bundle, folder: ModelFolder, runner: StageRunner, on_stage: OnStage
) -> list[Verification]:
    """Hold every set of variants of a bundle to the reference.

    The emulator takes seconds for what ONNX Runtime does in milliseconds, so each chip gets one of
    the prompts in turn; other variants get them all.

    Args:
        bundle: Bundle to verify.
        folder: The model folder that it was made of.
        runner: Runs the stages.
        on_stage: Progress.
    """
    recipe, manifest = folder.recipe, bundle.manifest
    prompts = recipe.verification_prompts
    size = {
        "num_frames": manifest.video.frames,
        "height": manifest.video.height,
        "width": manifest.video.width,
    }
    sampler = manifest.sampler
    arguments = _recording(
        folder,
        size,
        sorted(sampler.schedules),
        sampler.default_steps,
        prompts,
        VERIFICATION_SEED,
    )
    name = "run the reference"
    on_stage(name)
    recorded = runner.run(
        name,
        "record",
        arguments,
        paths={"model": folder.path},
        fingerprint=_weights_hash(folder),
    )
    content = _digest([replace(manifest, verification=()).to_json().decode()])
    variants = next(iter(manifest.components.values())).variants
    records: list[Verification] = []
    for index, variant in enumerate(variants):
        name = f"verify {variant.id}"
        on_stage(name)
        chosen = [prompts[index % len(prompts)]] if variant.chip else list(prompts)
        stage = runner.run(
            name,
            "verify",
            {"variant": variant.id, "prompts": chosen, "recipe": recipe.name},
            needs={"recorded": recorded},
            paths={"bundle": bundle.path},
            fingerprint=content,
        )
        rows: list[dict[str, Any]] = stage.result["records"]
        records += [Verification(**row) for row in rows]
    return records


def _recording(
    folder: ModelFolder,
    size: Mapping[str, int],
    steps: Sequence[int],
    default_steps: int,
    prompts: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    return {
        "recipe": folder.recipe.name,
        **size,
        "steps": list(steps),
        "default_steps": default_steps,
        "prompts": list(prompts),
        "first_seed": seed,
    }


def _weights_hash(folder: ModelFolder) -> str:
    return _digest([ref.sha256 for ref in folder.files_with_hashes()])


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
