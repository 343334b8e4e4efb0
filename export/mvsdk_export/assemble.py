"""Finished stages put together as a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvsdk._json import JsonValue
from mvsdk.bundle import BundleWriter
from mvsdk.manifest import (
    Component,
    Delegation,
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
from mvsdk.manifest.memory import MEMORY, GraphMemory, memory_to_json
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.checkpoints.pipeline import sizes_of
from mvsdk_export.checkpoints.scheduler import DiscreteScheduler
from mvsdk_export.families import ComponentRecipe, TensorRecipe
from mvsdk_export.families.conditioning import CUTS, write_cuts
from mvsdk_export.families.pipeline import TYPES, Pipeline, tensors_of
from mvsdk_export.jobs.job import Made, tool_versions
from mvsdk_export.jobs.progress import counted
from mvsdk_export.jobs.runner import files_made
from mvsdk_export.parity.recording import GUIDANCE, SAMPLER
from mvsdk_export.planning.plan import ExportPlan, Key
from mvsdk_export.planning.request import ExportRequest
from mvsdk_export.targets import find_spec
from mvsdk_export.targets.artefact import Artefact
from mvsdk_export.targets.spec import VariantPlan

VOCABULARY = "tokenizer/vocab.json"


def add_files(
    writer: BundleWriter, plan: ExportPlan, artefacts: Mapping[Key, Made[Artefact]]
) -> Manifest:
    """Put the files of a bundle together.

    Args:
        writer: Takes the files.
        plan: What was asked for, and what it means.
        artefacts: (component, variant id) -> what is shipped.

    Returns:
        Its manifest, without verification records.
    """
    request, pipeline = plan.request, plan.pipeline
    folder = request.folder
    recipe = folder.recipe
    sizes = sizes_of(folder, request.clip)
    keys = [(part, item) for part in recipe.components for item in request.plans_of(part.name)]
    variants = [
        (part.name, _variant(writer, request, part, item, artefacts[part.name, item.id]))
        for part, item in counted(keys, "artefacts")
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
    if request.folded_guidance is not None and recipe.guidance == "frames":
        extensions[GUIDANCE] = list(request.folded_guidance)
    if isinstance(folder.scheduler, DiscreteScheduler):
        extensions[SAMPLER] = folder.scheduler.sampler
    if memory := _memory(artefacts):
        extensions[MEMORY] = memory_to_json(memory)
    if folder.cuts:
        extensions[CUTS] = write_cuts(folder.cuts)
    return Manifest(
        name=recipe.name,
        programs=pipeline.programs,
        components=components,
        sets=tuple(
            VariantSet(id=item.id, variants={n: variant.id for n, variant in item.plans.items()})
            for item in request.sets
        ),
        samplers=pipeline.samplers,
        tokenizers=_add_tokenizers(writer, folder, pipeline),
        tables=_add_tables(writer, pipeline),
        source=Source(
            model=recipe.name,
            recipe=recipe.name,
            checkpoint=folder.files_with_hashes(),
            lora=folder.loras_with_hashes(),
        ),
        licences=tuple(
            Licence(name=name, applies_to=what) for name, what in recipe.licences.items()
        ),
        costs={item.component: item.to_numbers() for item in plan.costs},
        extensions=extensions,
    )


def _add_tokenizers(
    writer: BundleWriter, folder: ModelFolder, pipeline: Pipeline
) -> dict[str, TokenizerSpec]:
    if folder.vocabulary is None:
        return {}
    path = writer.directory / VOCABULARY
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(folder.vocabulary.to_bytes())
    file = writer.add_file(VOCABULARY)
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
    artefact: Made[Artefact],
) -> Variant:
    spec = find_spec(plan.spec)
    options = request.options_for(component.name, plan.spec)
    root = f"components/{component.name}/{plan.id}"
    files = [
        writer.add_file(f"{root}/{path.relative_to(artefact.folder).as_posix()}", source=path)
        for path in files_made(artefact)
        if spec.is_shipped(path)
    ]
    result = artefact.result
    delegation, qairt = result.get("delegation"), result.get("qairt")
    needed = ("torch", "numpy", *spec.kind(options).tools)
    tools = {name: version for name, version in tool_versions().items() if name in needed}
    return Variant(
        id=plan.id,
        target=plan.target,
        precision=plan.precision,
        chip=plan.chipset.chip if plan.chipset else None,
        format=plan.format,
        delegate=plan.delegate,
        deployment_target=plan.deployment_target,
        requires={"qairt": qairt} if qairt else {},
        model=f"{root}/{result.get('model')}",
        files=tuple(files),
        inputs=_specs(result["inputs"], component.inputs),
        outputs=_specs(result["outputs"], component.outputs),
        compute_unit=spec.compute_unit(plan, options),
        tools=tools,
        delegation=_delegation(delegation) if delegation else None,
    )


def _specs(
    rows: Sequence[Mapping[str, Any]], tensors: Sequence[TensorRecipe]
) -> tuple[TensorSpec, ...]:
    types = {tensor.name: TYPES[tensor.dtype] for tensor in tensors}
    return tuple(
        TensorSpec(**{**row, "shape": tuple(row["shape"]), "type": types[row["name"]]})
        for row in rows
    )


def _memory(artefacts: Mapping[Key, Made[Artefact]]) -> dict[Key, list[GraphMemory]]:
    """Return the memory of the variants whose compiler tells it."""
    return {
        key: [GraphMemory(**graph) for graph in graphs]
        for key, made in artefacts.items()
        if (graphs := made.result.get("memory"))
    }


def _delegation(row: Mapping[str, Any]) -> Delegation:
    outside = tuple(NonDelegated(**item) for item in row["non_delegated"])
    return Delegation(**{**row, "non_delegated": outside})
