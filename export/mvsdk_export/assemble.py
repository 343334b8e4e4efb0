"""Finished stages put together as a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvsdk.bundle import BundleWriter
from mvsdk.errors import BundleError
from mvsdk.manifest import (
    Component,
    ComputeUnit,
    Delegate,
    FileRef,
    Format,
    JsonValue,
    LatentSpec,
    LeftOutside,
    Licence,
    Manifest,
    Residency,
    Source,
    TensorSpec,
    TokenizerSpec,
    Variant,
    VideoSpec,
)
from mvsdk.tokenizer import WordPiece
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.costs import ComponentCosts
from mvsdk_export.lowering.spec import GRAPH_FORMATS
from mvsdk_export.progress import counted
from mvsdk_export.request import ExportRequest, VariantPlan
from mvsdk_export.schedule import make_sampler
from mvsdk_export.shapes import graph_sizes
from mvsdk_export.stages import LOG, RESULT, SCRATCH, Stage, tool_versions
from mvsdk_export.work.common import CONTEXT, MODEL

VOCABULARY = "tokenizer/vocab.json"
GUIDANCE = "x-guidance"
"""Key of a manifest: guidance of the first and the last frame, which the denoiser's graph holds."""
MAX_GUIDANCE = 1000.0
"""As `guidance_scale` in docs/bundle_format.md."""

_TOOLS: Mapping[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "qnn_context": ("onnx", "onnxscript", "onnxruntime", "onnxruntime-qnn"),
    "coreml": ("coremltools",),
    "coreai": ("coreai-core", "coreai-torch", "coreai-opt"),
    "executorch": ("executorch",),
}
"""What makes files of a format, beside PyTorch."""
_DELEGATE_TOOLS: Mapping[Delegate, tuple[str, ...]] = {
    "xnnpack": ("torchao",),
    "coreml": ("coremltools",),
}
_MODELS: Mapping[Format, str] = {"onnx": MODEL, "qnn_context": CONTEXT}
"""Files that are opened, where stages call them alike."""

Key = tuple[str, str]
"""(component, variant id)"""


def add_files(
    writer: BundleWriter,
    request: ExportRequest,
    costs: Sequence[ComponentCosts],
    artefacts: Mapping[Key, Stage],
) -> Manifest:
    """Put the files of a bundle together.

    Args:
        writer: Takes the files.
        request: What was asked for.
        costs: Of every component.
        artefacts: (component, variant id) -> what is shipped.

    Returns:
        Its manifest, without verification records.
    """
    folder = request.folder
    vocabulary: FileRef | None = None
    if folder.tokenizer_file is not None:
        vocabulary = writer.add_file(VOCABULARY, source=folder.tokenizer_file)
    parts = [part.name for part in folder.recipe.components]
    keys = [(part, plan) for part in parts for plan in request.variants]
    variants = [
        (part, _variant(writer, request, part, plan, artefacts[part, plan.id]))
        for part, plan in counted(keys, "artefacts")
    ]
    components = {
        part: Component(variants=tuple(made for name, made in variants if name == part))
        for part in parts
    }
    return _manifest(request, costs, components, vocabulary)


def _variant(
    writer: BundleWriter, request: ExportRequest, component: str, plan: VariantPlan, artefact: Stage
) -> Variant:
    root = f"components/{component}/{plan.id}"
    files = [
        writer.add_file(f"{root}/{path.relative_to(artefact.folder).as_posix()}", source=path)
        for path in sorted(artefact.folder.rglob("*"))
        if path.is_file()
        and path.relative_to(artefact.folder).parts[0] != SCRATCH
        and _is_shipped(path, plan)
    ]
    residency = artefact.result.get("residency")
    delegate = _DELEGATE_TOOLS.get(plan.delegate, ()) if plan.delegate else ()
    wanted = ("torch", "numpy", *_TOOLS[plan.format], *delegate)
    return Variant(
        id=plan.id,
        target=plan.target,
        precision=plan.precision,
        chip=plan.chipset.chip if plan.chipset else None,
        format=plan.format,
        delegate=plan.delegate,
        deployment_target=plan.deployment_target,
        model=f"{root}/{artefact.result.get('model') or _MODELS[plan.format]}",
        files=tuple(files),
        inputs=_specs(artefact.result["inputs"]),
        outputs=_specs(artefact.result["outputs"]),
        compute_unit=_compute_unit(request, plan),
        tools={name: version for name, version in tool_versions().items() if name in wanted},
        residency=_residency(residency) if residency else None,
    )


def _is_shipped(path: Path, plan: VariantPlan) -> bool:
    """Tell a file of a variant from what a compiler or a stage leaves beside it."""
    if plan.format in GRAPH_FORMATS:
        return path.suffix in (".onnx", ".bin", ".data")
    return path.name not in (RESULT, LOG)


def _compute_unit(request: ExportRequest, plan: VariantPlan) -> ComputeUnit:
    """Return where a variant is meant to run."""
    if plan.target == "iphone":
        return request.apple.compute_unit
    # The delegate's package is compiled for the Neural Engine (targets/executorch_coreml.py).
    return "NPU" if plan.chipset or plan.delegate == "coreml" else "CPU"


def _manifest(
    request: ExportRequest,
    costs: Sequence[ComponentCosts],
    components: Mapping[str, Component],
    vocabulary: FileRef | None,
) -> Manifest:
    folder = request.folder
    recipe = folder.recipe
    configs = folder.configs()
    sizes = graph_sizes(configs, **request.size)
    sampler = make_sampler(
        folder.scheduler, request.steps, request.default_steps, conditioning=recipe.conditioning
    )
    extensions: dict[str, JsonValue] = {}
    if request.folded_guidance is not None:
        sampler = replace(sampler, guidance_scale=max(request.folded_guidance))
        extensions[GUIDANCE] = list(request.folded_guidance)
    return Manifest(
        name=recipe.name,
        task=recipe.task,
        video=VideoSpec(
            frames=request.num_frames, height=request.height, width=request.width, fps=recipe.fps
        ),
        latents=LatentSpec(shape=(sizes["F"], sizes["C"], sizes["h"], sizes["w"])),
        components=components,
        sampler=sampler,
        tokenizer=_tokenizer(folder, vocabulary, sizes),
        source=Source(model=recipe.name, recipe=recipe.name, checkpoint=folder.files_with_hashes()),
        licences=tuple(
            Licence(name=name, applies_to=what) for name, what in recipe.licences.items()
        ),
        costs={item.component: item.to_numbers() for item in costs},
        extensions=extensions,
    )


def read_guidance(manifest: Manifest) -> tuple[float, float] | None:
    """Return the guidance that a bundle of ours holds; None for none.

    Raises:
        BundleError: If the manifest says something else under its key.
    """
    if GUIDANCE not in manifest.extensions:
        return None
    match manifest.extensions[GUIDANCE]:
        case [int() | float() as first, int() | float() as last] if _is_scale(first, last):
            return float(first), float(last)
        case other:
            raise BundleError(
                f"{GUIDANCE} of the manifest is {json.dumps(other)[:64]}; allowed: the guidance of "
                f"the first and the last frame, 0 to {MAX_GUIDANCE:g} each, such as [1, 3]; export "
                "the bundle again"
            )


def _is_scale(*values: float) -> bool:
    return all(not isinstance(x, bool) and 0 <= x <= MAX_GUIDANCE for x in values)


def _tokenizer(
    folder: ModelFolder, vocabulary: FileRef | None, sizes: Mapping[str, int]
) -> TokenizerSpec | None:
    if vocabulary is None or folder.tokenizer_file is None:
        return None
    tokenizer = WordPiece.from_file(folder.tokenizer_file, sizes["L"])
    return TokenizerSpec(
        file=vocabulary,
        max_length=sizes["L"],
        pad_token=tokenizer.pad,
        unk_token=tokenizer.unk,
    )


def _specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**row, "shape": tuple(row["shape"])}) for row in rows)


def _residency(row: Mapping[str, Any]) -> Residency:
    outside = tuple(LeftOutside(**item) for item in row["left_outside"])
    return Residency(**{**row, "left_outside": outside})
