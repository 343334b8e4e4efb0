"""Which part of a denoiser depends on the conditioning alone, and whether it pays to run it apart.

Cuts are at results of modules, so that they are the same for all targets, whatever the layers
inside are implemented by. `planning.data_flow` finds the results that can cross.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.checkpoints.building import GraphOptions, build_on_meta, with_frames, wrap
from mvsdk_export.checkpoints.pipeline import make_pipeline, sizes_of
from mvsdk_export.errors import CheckpointError, ExportError, one_line
from mvsdk_export.families.conditioning import cut_recipe, find_conditioning
from mvsdk_export.families.cut import Argument, Crossing, Cut
from mvsdk_export.families.pipeline import Clip, Pipeline, check_pipeline
from mvsdk_export.families.recipe import DENOISERS, ComponentRecipe, Recipe
from mvsdk_export.families.shapes import tensor_shapes
from mvsdk_export.planning.data_flow import DataFlow, Frontier, watched
from mvsdk_export.planning.request import ExportRequest

_logger = logging.getLogger(__name__)

MIN_SHARE = 0.03
"""Share of a denoiser's floating-point operations from which on a cut pays. Below it, a clip of
four steps saves about 2 % of the denoiser's time at most: as much as it may take to open one graph
more, and to hand what crosses to every step."""


def with_conditioning(request: ExportRequest) -> ExportRequest:
    """Return the request with its denoisers cut where it pays.

    A component that runs once is made in what its denoiser is made in, overrides included.
    """
    if not request.runs_conditioning_once:
        return replace(request, folder=request.folder.with_cuts(()))
    cuts = find_cuts(request.folder, request.clip)
    overrides = dict(request.overrides)
    for cut in cuts:
        if cut.component in overrides:
            overrides.setdefault(cut.name, overrides[cut.component])
    return replace(request, folder=request.folder.with_cuts(cuts), overrides=overrides)


def find_cuts(folder: ModelFolder, clip: Clip, *, min_share: float = MIN_SHARE) -> tuple[Cut, ...]:
    """Return where the denoisers of a model are to be cut, for clips of a size.

    Args:
        folder: The model; cuts that it has do not matter.
        clip: Which clips are made.
        min_share: Share of a denoiser's floating-point operations that a cut takes off its steps.

    Returns:
        At most one for each denoiser; none where its sampler has but one step, or where no bundle
        can hold the pipeline.

    Raises:
        ScheduleError: As `make_pipeline`; so ExportError.
        CheckpointError: If a configuration describes no network that can be built.
    """
    folder = folder.with_cuts(())
    recipe, configs, sizes = folder.recipe, folder.configs(), sizes_of(folder, clip)
    pipeline = make_pipeline(folder, clip)
    if not _is_valid(recipe, pipeline, sizes):
        return ()
    options = GraphOptions(height=clip.height, width=clip.width, guidance=clip.guidance, sigma=1.0)
    cuts: list[Cut] = []
    for part in recipe.components:
        if part.role not in DENOISERS:
            continue
        once = find_conditioning(pipeline.programs, pipeline.samplers, part.name)
        if not once:
            continue
        config = with_frames(configs[part.name], clip.num_frames)
        cut = _find_cut(part, config, options, _arguments(part, sizes), once, min_share)
        if cut is not None and _runs(recipe, cut, config, options):
            cuts.append(cut)
    return tuple(cuts)


def _is_valid(recipe: Recipe, pipeline: Pipeline, sizes: Mapping[str, int]) -> bool:
    """Return whether a bundle can hold a pipeline, which may be another package's.

    What is wrong with it is said where the plan of an export comes to it.
    """
    try:
        check_pipeline(recipe, pipeline, sizes)
    except ExportError:
        return False
    return True


def _arguments(part: ComponentRecipe, sizes: Mapping[str, int]) -> tuple[Argument, ...]:
    shapes = tensor_shapes(part.inputs, sizes)
    return tuple(
        Argument(
            name=tensor.name,
            shape=shape,
            dtype="int32" if tensor.dtype == "int32" else "float32",
        )
        for tensor, shape in zip(part.inputs, shapes, strict=True)
    )


def _find_cut(
    part: ComponentRecipe,
    config: Any,
    options: GraphOptions,
    arguments: Sequence[Argument],
    once: Collection[str],
    min_share: float,
) -> Cut | None:
    graph = wrap(part, build_on_meta(part, config), options)
    taken = {tensor.name for tensor in (*part.inputs, *part.outputs)}
    return cut_of(graph, part.name, arguments, once, names=taken, min_share=min_share)


def _runs(recipe: Recipe, cut: Cut, config: Any, options: GraphOptions) -> bool:
    """Return whether both graphs run: a network may look into a module that is taken out of it."""
    both = cut_recipe(recipe, cut)
    dtypes = {item.name: item.dtype for item in cut.arguments}
    shapes = {item.name: item.shape for item in (*cut.arguments, *cut.crossings)}
    for name in (cut.name, cut.component):
        part = both.component(name)
        graph = wrap(part, build_on_meta(part, config), options)
        inputs = [
            _meta(shapes[tensor.name], dtypes.get(tensor.name, "float32")) for tensor in part.inputs
        ]
        try:
            with torch.device("meta"), torch.no_grad():
                graph(*inputs)
        except (RuntimeError, ValueError, ArithmeticError, AttributeError, TypeError) as exc:
            _logger.debug("%s is not cut: %s", cut.component, one_line(exc))
            return False
    return True


def cut_of(
    graph: nn.Module,
    component: str,
    arguments: Sequence[Argument],
    once: Collection[str],
    *,
    names: Collection[str] = (),
    min_share: float = MIN_SHARE,
) -> Cut | None:
    """Return where a graph is to be cut.

    Args:
        graph: The whole graph, on the meta device, in evaluation mode.
        component: What it is called.
        arguments: Its inputs, in the order of `forward`.
        once: Names of those that are the same at all steps of a clip.
        names: Of tensors of the component, which no other may have.
        min_share: Share of its floating-point operations from which on a cut pays.

    Returns:
        None where it does not pay, or where the graph cannot be cut at results of modules: it
        changes tensors in place, or cannot run at this size.
    """
    flow = DataFlow()
    inputs = [_meta(item.shape, item.dtype) for item in arguments]
    for item, tensor in zip(arguments, inputs, strict=True):
        flow.add_input(item.name, tensor, once=item.name in once)
    try:
        with torch.device("meta"), torch.no_grad(), watched(graph, flow), flow:
            outputs = graph(*inputs)
    except (RuntimeError, ValueError, ArithmeticError, CheckpointError) as exc:
        _logger.debug("%s is not cut: %s", component, one_line(exc))
        return None
    flow.end(outputs)
    frontier = flow.find_frontier()
    if not frontier.calls or flow.total_flops == 0:
        return None
    made = flow.behind(frontier.calls)
    if made.flops < min_share * flow.total_flops:
        return None
    return _make_cut(component, arguments, once, frontier, made.inputs, flow, set(names))


def _make_cut(
    component: str,
    arguments: Sequence[Argument],
    once: Collection[str],
    frontier: Frontier,
    taken: Collection[str],
    flow: DataFlow,
    names: set[str],
) -> Cut:
    names |= {item.name for item in arguments}
    crossings: list[Crossing] = []
    for call in frontier.calls:
        calls = flow.counts[call.path]
        name = _tensor_name(call.path if calls == 1 else f"{call.path}_{call.index}", names)
        names.add(name)
        assert call.output is not None
        crossings.append(
            Crossing(
                name=name,
                module=call.path,
                call=call.index,
                calls=calls,
                shape=tuple(call.output.shape),
            )
        )
    # An input that nothing reads stays where it was.
    kept = {item.name for item in arguments if item.name not in once or item.name not in taken}
    return Cut(
        component=component,
        name=f"{component}_conditioning",
        arguments=tuple(arguments),
        conditioning_inputs=tuple(item.name for item in arguments if item.name in taken),
        step_inputs=tuple(item.name for item in arguments if item.name in kept | frontier.inputs),
        crossings=tuple(crossings),
    )


def _tensor_name(path: str, taken: Collection[str]) -> str:
    """Return a name that Core ML takes too: letters, digits and underscores, no digit first."""
    name = path.replace(".", "_")
    name = f"module_{name}" if name[0].isdigit() else name
    return next(x for x in (name, *(f"{name}_{n}" for n in range(2, 1 << 16))) if x not in taken)


def _meta(shape: Sequence[int], dtype: str) -> Tensor:
    return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device="meta")
