"""A whole compression: the steps of a recipe, one after the other."""

from __future__ import annotations

from dataclasses import replace

from mvsdk_export.compress.folding import fold_cross_attention, report_folding
from mvsdk_export.compress.frames import halve_frames, report_frames
from mvsdk_export.compress.funnels import add_funnels, merge_funnels, report_funnels
from mvsdk_export.compress.importance import Importance
from mvsdk_export.compress.pruning import Keep, prune_temporal, report_pruning
from mvsdk_export.compress.recipe import CompressionRecipe, Step
from mvsdk_export.compress.reports import LATENT_SIZE, Report
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.families.svd.unet import SVDUNet


def compress_unet(
    unet: SVDUNet,
    recipe: CompressionRecipe,
    *,
    importance: Importance | None = None,
    latent_size: tuple[int, int] = LATENT_SIZE,
) -> tuple[SVDUNet, tuple[Report, ...]]:
    """Do the steps of a recipe; nothing is trained in between.

    Args:
        unet: The network; it stays as it is, and shares the weights that are kept.
        recipe: Steps and settings.
        importance: Learned scores to prune by; `recipe.keep` takes the place of its number.
        latent_size: Height and width of latents for which costs are counted.

    Returns:
        The compressed network, funnels merged, and a report on each step.

    Raises:
        CompressionError: If a step is done already, or a setting does not fit the network.
    """
    reports: list[Report] = []
    for step in recipe.steps:
        unet, report = _do(step, unet, recipe, importance, latent_size)
        reports.append(report)
    return unet, tuple(reports)


def plan_compression(
    config: SVDUNetConfig,
    recipe: CompressionRecipe,
    *,
    importance: Importance | None = None,
    latent_size: tuple[int, int] = LATENT_SIZE,
) -> tuple[Report, ...]:
    """Return the reports that `compress_unet` would make, from the configuration alone.

    Fidelities are not among them: they need weights.

    Raises:
        CompressionError: As there.
    """
    reports: list[Report] = []
    for step in recipe.steps:
        reports.append(_report(step, config, recipe, importance, latent_size))
        config = reports[-1].config
    return tuple(reports)


def _do(
    step: Step,
    unet: SVDUNet,
    recipe: CompressionRecipe,
    importance: Importance | None,
    latent_size: tuple[int, int],
) -> tuple[SVDUNet, Report]:
    match step:
        case "fold":
            return fold_cross_attention(unet, latent_size=latent_size)
        case "frames":
            return halve_frames(
                unet,
                recipe.frame_levels,
                down=recipe.frame_down,
                up=recipe.frame_up,
                latent_size=latent_size,
            )
        case "prune":
            keep = _keep(unet.config, recipe, importance)
            return prune_temporal(unet, keep, latent_size=latent_size)
        case "funnels":
            wide, report = add_funnels(
                unet, recipe.funnel_factor, recipe.funnel_layers, latent_size=latent_size
            )
            return merge_funnels(wide), report


def _report(
    step: Step,
    config: SVDUNetConfig,
    recipe: CompressionRecipe,
    importance: Importance | None,
    latent_size: tuple[int, int],
) -> Report:
    match step:
        case "fold":
            return report_folding(config, latent_size=latent_size)
        case "frames":
            return report_frames(
                config,
                recipe.frame_levels,
                down=recipe.frame_down,
                up=recipe.frame_up,
                latent_size=latent_size,
            )
        case "prune":
            keep = _keep(config, recipe, importance)
            return report_pruning(config, keep, latent_size=latent_size)
        case "funnels":
            return report_funnels(
                config, recipe.funnel_factor, recipe.funnel_layers, latent_size=latent_size
            )


def _keep(config: SVDUNetConfig, recipe: CompressionRecipe, importance: Importance | None) -> Keep:
    if importance is None:
        return recipe.kept(config.temporal_block_count)
    return importance if recipe.keep is None else replace(importance, keep=recipe.keep)
