"""What a bundle will do, before there is any graph: programs, samplers, and the roles of graphs.

The reference runs it with PyTorch networks, to calibrate and to compare; the manifest says it, and
a runtime runs it with compiled graphs. A recipe whose clips need more than one denoiser and one
decoder names a function of its own (`Recipe.pipeline`); the others are made by `usual_pipeline`.
`checkpoints.pipeline.make_pipeline` chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from mvsdk._text import quoted
from mvsdk.errors import BundleError
from mvsdk.manifest import (
    Component,
    DType,
    FileRef,
    Manifest,
    Program,
    Sampler,
    Source,
    Table,
    Tensor,
    TensorSpec,
    TokenizerKind,
    TokenizerSpec,
    TooLong,
    ValueType,
    Variant,
    VariantSet,
    VideoSpec,
)
from mvsdk.manifest.usual import ADDED_TIME_IDS, SAMPLER, TOKENIZER, UsualModel, usual_program
from mvsdk_export.errors import ExportError, one_line
from mvsdk_export.families.recipe import ComponentRecipe, Recipe, TensorRecipe
from mvsdk_export.families.shapes import tensor_shapes

TYPES: Mapping[str, ValueType] = {"uint8": "pixels", "int32": "integer", "float32": "real"}
"""Type of a tensor in a recipe -> what a manifest calls it."""
_STORED: Mapping[ValueType, DType] = {"pixels": "uint8", "integer": "int32", "real": "float32"}
_NOTHING = FileRef(path="none", bytes=0, sha256="0" * 64)
_PLANNED = "planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerRecipe:
    """How a text becomes token numbers, but for the vocabulary."""

    kind: TokenizerKind = "wordpiece"
    max_length: int
    too_long: TooLong = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Which clip of a model is made: what a pipeline depends on beside the checkpoint."""

    num_frames: int
    height: int
    width: int
    decode_frames: int
    steps: tuple[int, ...]
    default_steps: int
    guidance: tuple[float, float] | None = None
    """Of the first and the last frame, which the denoiser's graph holds; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What is carried out to make a clip."""

    programs: tuple[Program, ...]
    samplers: Mapping[str, Sampler]
    tokenizers: Mapping[str, TokenizerRecipe] = field(default_factory=dict)
    tables: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Float32, int32 or uint8."""


def check_pipeline(recipe: Recipe, pipeline: Pipeline, sizes: Mapping[str, int]) -> None:
    """Check what a recipe makes by the rules of a manifest, before there is any file of it.

    Raises:
        ExportError: If a bundle of it would be refused, or takes a vocabulary that model folders
            of the recipe do not have.
    """
    place = recipe.pipeline or "the recipe"
    if pipeline.tokenizers and not recipe.takes_text:
        raise ExportError(
            f"the recipe {quoted(recipe.name)} has the tokenizer {next(iter(pipeline.tokenizers))} "
            "and no text encoder, without which a model folder has no vocabulary; give the "
            "component that takes its numbers the role text_encoder"
        )
    about = f"the recipe {quoted(recipe.name)} makes a pipeline that no bundle can hold"
    try:
        _with_placeholders(outline(recipe, pipeline, sizes)).to_json()
    except BundleError as exc:
        said = str(exc).removeprefix("manifest.json: ").rpartition("; ")[0]
        rule = f" (rule {exc.rule})" if exc.rule else ""
        raise ExportError(f"{about}: {said}{rule}; correct {place}") from exc
    except Exception as exc:  # values of a package of somebody else's, of whatever types
        if recipe.pipeline is None:
            raise
        raise ExportError(f"{about} ({one_line(exc)}); correct {place}") from exc


def _with_placeholders(manifest: Manifest) -> Manifest:
    """Return the outline of a manifest with a variant of each component, as a whole one has."""
    return replace(
        manifest,
        components={
            name: replace(part, variants=(_placeholder(part),))
            for name, part in manifest.components.items()
        },
        sets=(VariantSet(id=_PLANNED, variants=dict.fromkeys(manifest.components, _PLANNED)),),
    )


def _placeholder(part: Component) -> Variant:
    inputs, outputs = (
        tuple(
            TensorSpec(name=x.name, shape=x.shape, dtype=_STORED[x.type], type=x.type)
            for x in tensors
        )
        for tensors in (part.inputs, part.outputs)
    )
    return Variant(
        id=_PLANNED,
        target="onnx",
        precision="fp32",
        chip=None,
        format="onnx",
        model=_NOTHING.path,
        files=(_NOTHING,),
        inputs=inputs,
        outputs=outputs,
        compute_unit="CPU",
        tools={},
    )


def usual_pipeline(recipe: Recipe, sampler: Sampler, sizes: Mapping[str, int]) -> Pipeline:
    """Return what makes a clip of a prompt or a picture with one denoiser and one decoder."""
    ids = recipe.conditioning.get(ADDED_TIME_IDS)
    constants = {k: v for k, v in recipe.conditioning.items() if k != ADDED_TIME_IDS}
    model = UsualModel(
        task=recipe.task,
        video=VideoSpec(
            frames=sizes["F"], height=sizes["H"], width=sizes["W"], fps=float(recipe.fps)
        ),
        latents=(sizes["F"], sizes["C"], sizes["h"], sizes["w"]),
        denoiser=recipe.denoiser,
        denoiser_inputs=[tensor.name for tensor in recipe.component(recipe.denoiser).inputs],
        decode_frames=sizes["f"],
        constants=constants,
        added_time_ids=None if ids is None else (ids[0], ids[1], ids[2]),
    )
    tokenizers = {TOKENIZER: TokenizerRecipe(max_length=sizes["L"])} if recipe.takes_text else {}
    return Pipeline(
        programs=(usual_program(model),), samplers={SAMPLER: sampler}, tokenizers=tokenizers
    )


def tensors_of(tensors: tuple[TensorRecipe, ...], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Return inputs or outputs of a component as a manifest says them."""
    shapes = tensor_shapes(tensors, sizes)
    return tuple(
        Tensor(name=tensor.name, shape=shape, type=TYPES[tensor.dtype])
        for tensor, shape in zip(tensors, shapes, strict=True)
    )


def outline(recipe: Recipe, pipeline: Pipeline, sizes: Mapping[str, int]) -> Manifest:
    """Return a manifest without variants, whose files say but their sizes: enough for a runner."""
    return Manifest(
        name=recipe.name,
        programs=pipeline.programs,
        components={part.name: _outline_component(part, sizes) for part in recipe.components},
        sets=(),
        samplers=pipeline.samplers,
        tokenizers={
            name: TokenizerSpec(
                kind=item.kind, file=_NOTHING, max_length=item.max_length, too_long=item.too_long
            )
            for name, item in pipeline.tokenizers.items()
        },
        tables={
            name: Table(file=_table_file(name, array), dtype=str(array.dtype), shape=array.shape)  # type: ignore[arg-type]
            for name, array in pipeline.tables.items()
        },
        source=Source(model=recipe.name, recipe=recipe.name),
    )


def _table_file(name: str, array: NDArray[Any]) -> FileRef:
    return replace(_NOTHING, path=f"tables/{name}.bin", bytes=array.nbytes)


def _outline_component(part: ComponentRecipe, sizes: Mapping[str, int]) -> Component:
    return Component(
        role=part.role,
        inputs=tensors_of(part.inputs, sizes),
        outputs=tensors_of(part.outputs, sizes),
        variants=(),
    )
