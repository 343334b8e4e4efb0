"""The pipeline of a model folder: that of its recipe, with the sampler of its scheduler."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from mvsdk._text import quoted
from mvsdk.manifest import Sampler
from mvsdk_export.checkpoints.folder import ModelFolder
from mvsdk_export.checkpoints.schedule import make_sampler
from mvsdk_export.errors import ExportError, one_line
from mvsdk_export.families import Recipe
from mvsdk_export.families.conditioning import cut_pipeline
from mvsdk_export.families.pipeline import Clip, Pipeline, usual_pipeline
from mvsdk_export.families.recipe import resolve
from mvsdk_export.families.shapes import graph_sizes

_logger = logging.getLogger(__name__)


def make_pipeline(folder: ModelFolder, clip: Clip) -> Pipeline:
    """Return what makes a clip of a model.

    Raises:
        ScheduleError: If there are no noise levels for a wanted number of steps.
        ExportError: If a denoiser of one step shall take more, or the recipe's own function fails.
    """
    recipe, scheduler = folder.whole_recipe, folder.scheduler
    sampler = make_sampler(scheduler, clip.steps, clip.default_steps)
    if clip.guidance is not None:
        sampler = replace(sampler, guidance_scale=max(clip.guidance))
    sizes = sizes_of(folder, clip)
    pipeline = (
        usual_pipeline(recipe, sampler, sizes)
        if recipe.pipeline is None
        else _call(recipe.pipeline, recipe, sampler, sizes)
    )
    for cut in folder.cuts:
        pipeline = cut_pipeline(pipeline, cut)
    return pipeline


def sizes_of(folder: ModelFolder, clip: Clip) -> dict[str, int]:
    """Return the size of every symbol, as `graph_sizes` does."""
    return graph_sizes(
        folder.configs(),
        num_frames=clip.num_frames,
        height=clip.height,
        width=clip.width,
        decode_frames=clip.decode_frames,
    )


def _call(place: str, recipe: Recipe, sampler: Sampler, sizes: Mapping[str, int]) -> Pipeline:
    """Return what the function of a recipe makes, which may be another package's."""
    about = f"the recipe {quoted(recipe.name)} makes no pipeline: {place}"
    try:
        made: object = resolve(place)(recipe, sampler, sizes)
    except ExportError:  # a refusal in the function's own words
        raise
    except Exception as exc:  # whatever a package of somebody else's raises
        _logger.debug("%s fails", place, exc_info=exc)
        raise ExportError(f"{about} fails ({one_line(exc)}); correct its package") from exc
    if not isinstance(made, Pipeline):
        raise ExportError(
            f"{about} returns a {type(made).__name__}, expected a Pipeline; correct its package"
        )
    return made
