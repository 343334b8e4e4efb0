"""From a model folder to a verified bundle: trace, calibrate, quantise, compile, verify, write.

Every verb is a stage (stages.py). The bundle is put together in the cache first, verified there by
the runtime that will open it, and only then written to its place, so that no bundle that failed
its own checks is ever seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvsdk.bundle import Bundle, BundleWriter
from mvsdk.devices import Chipset
from mvsdk.manifest import (
    Component,
    FileRef,
    LatentSpec,
    LeftOutside,
    Licence,
    Manifest,
    Precision,
    Residency,
    Source,
    Target,
    TensorSpec,
    TokenizerSpec,
    Variant,
    Verification,
    VideoSpec,
)
from mvsdk.tokenizer import WordPiece
from mvsdk_export.checkpoints import ModelFolder, load_configs
from mvsdk_export.costs import measure_recipe
from mvsdk_export.schedule import make_sampler
from mvsdk_export.shapes import graph_sizes
from mvsdk_export.stages import Stage, StageRunner, tool_versions
from mvsdk_export.verify import check_parity
from mvsdk_export.work import CONTEXT, MODEL

CALIBRATION_SEED = 1000
VERIFICATION_SEED = 7
VOCABULARY = "tokenizer/vocab.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export, every default filled in."""

    folder: ModelFolder
    target: Target
    precisions: tuple[Precision, ...]
    chips: tuple[Chipset, ...]
    """Empty for targets that are not compiled for a chip."""
    num_frames: int
    height: int
    width: int
    steps: tuple[int, ...]
    out: Path
    overwrite: bool = False
    verify: bool = True

    @property
    def variants(self) -> tuple[VariantPlan, ...]:
        """The sets of variants to make, in order."""
        if self.target == "onnx":
            return tuple(
                VariantPlan(id=f"onnx-{p}", target="onnx", precision=p, chipset=None)
                for p in self.precisions
            )
        return tuple(
            VariantPlan(
                id=f"snapdragon-{chip.slug}-{p}", target="snapdragon", precision=p, chipset=chip
            )
            for p in self.precisions
            for chip in self.chips
        )

    @property
    def size(self) -> dict[str, int]:
        """Frames, height and width, as functions of the toolchain take them."""
        return {"num_frames": self.num_frames, "height": self.height, "width": self.width}

    @property
    def default_steps(self) -> int:
        """The recipe's default where it is among the steps, else the largest."""
        preferred = self.folder.recipe.default_steps
        return preferred if preferred in self.steps else max(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPlan:
    """One set of variants: the same id in every component."""

    id: str
    target: Target
    precision: Precision
    chipset: Chipset | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export made."""

    bundle: Bundle
    stages: tuple[Stage, ...]
    draft: Path
    """The copy in the cache that was verified."""


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


def source_precision(plan: VariantPlan) -> Precision:
    """Return which ONNX model a variant is made of: the HTP takes float32 for float16."""
    return "fp32" if plan.target == "snapdragon" and plan.precision == "fp16" else plan.precision


def export(request: ExportRequest, runner: StageRunner, on_stage: OnStage) -> ExportReport:
    """Make a bundle.

    Args:
        request: What to export.
        runner: Runs the stages; holds what an earlier run finished.
        on_stage: Progress.

    Raises:
        OutputError: If the output exists, or cannot be written; before any work.
        CheckpointError: If a weight file is damaged.
        ExportError: If a stage fails.
        ParityError: If a variant misses a floor; nothing is written then.
    """
    with BundleWriter(request.out, overwrite=request.overwrite) as writer:
        sources, stages = _make_graphs(request, runner, on_stage)
        draft = runner.cache_folder / f"draft-{_fingerprint(stages.values())[:24]}.mvbundle"
        manifest = _write(BundleWriter(draft, overwrite=True), request, sources, stages)
        if request.verify:
            records = verify_bundle(Bundle.open(draft), request.folder, runner, on_stage)
            check_parity(records)
            manifest = replace(manifest, verification=tuple(records))
        on_stage("write the bundle")
        for ref in manifest.files():
            writer.add_file(ref.path, source=draft / ref.path)
        bundle = writer.commit(manifest)
        on_stage("")
    return ExportReport(bundle=bundle, stages=tuple(runner.finished), draft=draft)


Key = tuple[str, str]
"""(component, variant id), or (component, precision) for the models that variants are made of."""


def _make_graphs(
    request: ExportRequest, runner: StageRunner, on_stage: OnStage
) -> tuple[dict[Key, Stage], dict[Key, Stage]]:
    """Return the ONNX models by precision, and the artefacts by variant."""
    common = _common(request.folder, request.size)
    weights = _weights_hash(request.folder)
    traced: dict[str, Stage] = {}

    def run(name: str, function: str, **options: Any) -> Stage:
        on_stage(name)
        return runner.run(name, function, **options)

    for part in request.folder.recipe.components:
        arguments = {**common, "component": part.name}
        name = f"trace {part.name}"
        traced[part.name] = run(name, "trace", arguments=arguments, fingerprint=weights)
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
        recorded = run("calibrate", "record", arguments=arguments, fingerprint=weights)
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


def _write(
    writer: BundleWriter,
    request: ExportRequest,
    models: Mapping[Key, Stage],
    artefacts: Mapping[Key, Stage],
) -> Manifest:
    """Write the bundle without verification records; return its manifest."""
    folder = request.folder
    with writer:
        vocabulary = writer.add_file(VOCABULARY, source=folder.tokenizer_file)
        components = {
            part.name: Component(
                variants=tuple(
                    _variant(
                        writer,
                        part.name,
                        plan,
                        models[part.name, source_precision(plan)],
                        artefacts[part.name, plan.id],
                    )
                    for plan in request.variants
                )
            )
            for part in folder.recipe.components
        }
        manifest = _manifest(request, components, vocabulary)
        writer.commit(manifest)
    return manifest


def _variant(
    writer: BundleWriter, component: str, plan: VariantPlan, model: Stage, artefact: Stage
) -> Variant:
    root = f"components/{component}/{plan.id}"
    kept = {".onnx", ".bin", ".data"}
    files = [
        writer.add_file(f"{root}/{path.name}", source=path)
        for path in sorted(artefact.folder.iterdir())
        if path.suffix in kept
    ]
    residency = artefact.result.get("residency")
    return Variant(
        id=plan.id,
        target=plan.target,
        precision=plan.precision,
        chip=plan.chipset.chip if plan.chipset else None,
        model=f"{root}/{CONTEXT if plan.chipset else MODEL}",
        files=tuple(files),
        inputs=_specs(model.result["inputs"]),
        outputs=_specs(model.result["outputs"]),
        compute_unit="NPU" if plan.chipset else "CPU",
        tools=tool_versions(),
        residency=_residency(residency) if residency else None,
    )


def _manifest(
    request: ExportRequest, components: Mapping[str, Component], vocabulary: FileRef
) -> Manifest:
    folder = request.folder
    recipe = folder.recipe
    configs = load_configs(folder.path, recipe)
    sizes = graph_sizes(configs, **request.size)
    tokenizer = WordPiece.from_file(folder.tokenizer_file, sizes["L"])
    costs = measure_recipe(recipe, configs, **request.size)
    return Manifest(
        name=recipe.name,
        task=recipe.task,
        video=VideoSpec(
            frames=request.num_frames, height=request.height, width=request.width, fps=recipe.fps
        ),
        latents=LatentSpec(shape=(sizes["F"], sizes["C"], sizes["h"], sizes["w"])),
        components=components,
        sampler=make_sampler(folder.scheduler, request.steps, request.default_steps),
        tokenizer=TokenizerSpec(
            file=vocabulary,
            max_length=sizes["L"],
            pad_token=tokenizer.pad,
            unk_token=tokenizer.unk,
        ),
        source=Source(model=recipe.name, recipe=recipe.name, checkpoint=folder.files_with_hashes()),
        licences=tuple(
            Licence(name=name, applies_to=what) for name, what in recipe.licences.items()
        ),
        costs={item.component: item.to_numbers() for item in costs},
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
    recorded = runner.run(name, "record", arguments, fingerprint=_weights_hash(folder))
    hashes = _digest([ref.sha256 for ref in manifest.files()])
    variants = next(iter(manifest.components.values())).variants
    records: list[Verification] = []
    for index, variant in enumerate(variants):
        name = f"verify {variant.id}"
        on_stage(name)
        chosen = [prompts[index % len(prompts)]] if variant.chip else list(prompts)
        arguments = {
            "bundle": str(bundle.path),
            "variant": variant.id,
            "prompts": chosen,
            "recipe": recipe.name,
        }
        needs = {"recorded": recorded}
        stage = runner.run(name, "verify", arguments, needs=needs, fingerprint=hashes)
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
        **_common(folder, size),
        "steps": list(steps),
        "default_steps": default_steps,
        "prompts": list(prompts),
        "first_seed": seed,
    }


def _common(folder: ModelFolder, size: Mapping[str, int]) -> dict[str, Any]:
    return {"model": str(folder.path), "recipe": folder.recipe.name, **size}


def _weights_hash(folder: ModelFolder) -> str:
    return _digest([ref.sha256 for ref in folder.files_with_hashes()])


def _fingerprint(stages: Iterable[Stage]) -> str:
    return _digest([stage.key for stage in stages])


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in rows)


def _residency(row: Mapping[str, Any]) -> Residency:
    outside = tuple(LeftOutside(**item) for item in row["left_outside"])
    return Residency(npu_nodes=row["npu_nodes"], cpu_nodes=row["cpu_nodes"], left_outside=outside)
