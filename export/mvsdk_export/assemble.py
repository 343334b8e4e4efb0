"""Finished stages put together as a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvsdk._json import JsonValue
from mvsdk.bundle import BundleWriter
from mvsdk.errors import BundleError
from mvsdk.manifest import (
    Component,
    ComputeUnit,
    Delegate,
    Delegation,
    Format,
    Licence,
    Manifest,
    NonDelegated,
    Source,
    Table,
    TensorSpec,
    TokenizerSpec,
    Variant,
    VariantSet,
)
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.families import ComponentRecipe, TensorRecipe
from mvsdk_export.families.pipeline import TYPES, Pipeline, make_pipeline, sizes_of, tensors_of
from mvsdk_export.jobs.progress import counted
from mvsdk_export.jobs.runner import LOG, RESULT, SCRATCH, Stage, tool_versions
from mvsdk_export.planning.costs import ComponentCosts
from mvsdk_export.planning.lowering import GRAPH_FORMATS
from mvsdk_export.planning.request import ExportRequest, VariantPlan
from mvsdk_export.targets.subject import CONTEXT, MODEL

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
    recipe = folder.recipe
    pipeline, sizes = make_pipeline(folder, request.clip), sizes_of(folder, request.clip)
    keys = [(part, plan) for part in recipe.components for plan in request.plans_of(part.name)]
    variants = [
        (part.name, _variant(writer, request, part, plan, artefacts[part.name, plan.id]))
        for part, plan in counted(keys, "artefacts")
    ]
    components = {
        part.name: Component(
            role=part.role,
            inputs=tensors_of(part.inputs, sizes),
            outputs=tensors_of(part.outputs, sizes),
            variants=tuple(made for name, made in variants if name == part.name),
        )
        for part in recipe.components
    }
    extensions: dict[str, JsonValue] = {}
    if request.folded_guidance is not None:
        extensions[GUIDANCE] = list(request.folded_guidance)
    return Manifest(
        name=recipe.name,
        programs=pipeline.programs,
        components=components,
        sets=tuple(
            VariantSet(id=item.id, variants={n: plan.id for n, plan in item.plans.items()})
            for item in request.sets
        ),
        samplers=pipeline.samplers,
        tokenizers=_add_tokenizers(writer, folder, pipeline),
        tables=_add_tables(writer, pipeline),
        source=Source(model=recipe.name, recipe=recipe.name, checkpoint=folder.files_with_hashes()),
        licences=tuple(
            Licence(name=name, applies_to=what) for name, what in recipe.licences.items()
        ),
        costs={item.component: item.to_numbers() for item in costs},
        extensions=extensions,
    )


def _add_tokenizers(
    writer: BundleWriter, folder: ModelFolder, pipeline: Pipeline
) -> dict[str, TokenizerSpec]:
    if folder.tokenizer_file is None:
        return {}
    file = writer.add_file(VOCABULARY, source=folder.tokenizer_file)
    return {
        name: TokenizerSpec(
            kind=item.kind, file=file, max_length=item.max_length, too_long=item.too_long
        )
        for name, item in pipeline.tokenizers.items()
    }


def _add_tables(writer: BundleWriter, pipeline: Pipeline) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for name, array in pipeline.tables.items():
        path = writer.directory / "tables" / f"{name}.bin"
        path.parent.mkdir(exist_ok=True)
        array.astype(array.dtype.newbyteorder("<")).tofile(path)
        file = writer.add_file(f"tables/{name}.bin")
        tables[name] = Table(file=file, dtype=str(array.dtype), shape=array.shape)  # type: ignore[arg-type]
    return tables


def _variant(
    writer: BundleWriter,
    request: ExportRequest,
    component: ComponentRecipe,
    plan: VariantPlan,
    artefact: Stage,
) -> Variant:
    root = f"components/{component.name}/{plan.id}"
    files = [
        writer.add_file(f"{root}/{path.relative_to(artefact.folder).as_posix()}", source=path)
        for path in sorted(artefact.folder.rglob("*"))
        if path.is_file()
        and path.relative_to(artefact.folder).parts[0] != SCRATCH
        and _is_shipped(path, plan)
    ]
    delegation = artefact.result.get("delegation")
    delegate = _DELEGATE_TOOLS.get(plan.delegate, ()) if plan.delegate else ()
    wanted = ("torch", "numpy", *_TOOLS[plan.format], *delegate)
    qairt = artefact.result.get("qairt")
    tools = {name: version for name, version in tool_versions().items() if name in wanted}
    return Variant(
        id=plan.id,
        target=plan.target,
        precision=plan.precision,
        chip=plan.chipset.chip if plan.chipset else None,
        format=plan.format,
        delegate=plan.delegate,
        deployment_target=plan.deployment_target,
        requires={"qairt": qairt} if qairt else {},
        model=f"{root}/{artefact.result.get('model') or _MODELS[plan.format]}",
        files=tuple(files),
        inputs=_specs(artefact.result["inputs"], component.inputs),
        outputs=_specs(artefact.result["outputs"], component.outputs),
        compute_unit=_compute_unit(request, plan),
        tools=tools,
        delegation=_delegation(delegation) if delegation else None,
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
    # The delegate's package is compiled for the Neural Engine (targets/executorch/coreml.py).
    return "NPU" if plan.chipset or plan.delegate == "coreml" else "CPU"


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


def _specs(
    rows: Sequence[Mapping[str, Any]], tensors: Sequence[TensorRecipe]
) -> tuple[TensorSpec, ...]:
    types = {tensor.name: TYPES[tensor.dtype] for tensor in tensors}
    return tuple(
        TensorSpec(**{**row, "shape": tuple(row["shape"]), "type": types[row["name"]]})
        for row in rows
    )


def _delegation(row: Mapping[str, Any]) -> Delegation:
    outside = tuple(NonDelegated(**item) for item in row["non_delegated"])
    return Delegation(**{**row, "non_delegated": outside})
