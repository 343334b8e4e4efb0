"""Recipes: light data that says how one model becomes a bundle. Importing them needs no torch.

A recipe names networks by `"module:attribute"`; whoever builds them resolves the names. A model of
the SDK's own has a file here and a line in `RECIPES`. Any other package offers recipes of its own
as entry points of the group `mvsdk.recipes`, each the name of a recipe and where the `Recipe` is:

    [project.entry-points."mvsdk.recipes"]
    dancer = "dancer.recipe:DANCER"

Such a recipe is imported when it is first asked for, in the processes that stages run in too.
docs/families.md shows a whole one.
"""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, entry_points

from mvsdk._text import quoted
from mvsdk_export.errors import ExportError, one_line
from mvsdk_export.families.animator.recipe import ANIMATOR
from mvsdk_export.families.recipe import (
    DECODER,
    ComponentRecipe,
    DecoderVariant,
    Recipe,
    SchedulerVariant,
    TensorRecipe,
)
from mvsdk_export.families.sticker.recipe import STICKER
from mvsdk_export.families.svd.recipe import MOBILEVD

_logger = logging.getLogger(__name__)

GROUP = "mvsdk.recipes"
"""Entry points of other packages: each names a `Recipe`, and is called as that is."""

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (ANIMATOR, MOBILEVD, STICKER)}
"""Those of this package. No other package replaces one of them."""


def recipe_names() -> tuple[str, ...]:
    """Return the names of all recipes, sorted, without importing other packages."""
    return tuple(sorted({*RECIPES, *(point.name for point in _offered())}))


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a model.

    Raises:
        ExportError: No recipe has that name, or the package that offers it is broken.
    """
    if name in RECIPES:
        return RECIPES[name]
    found = [point for point in _offered() if point.name == name]
    if not found:
        raise ExportError(f"unknown model {quoted(name)}; known: {', '.join(recipe_names())}")
    places = list(dict.fromkeys(point.value for point in found))
    if len(places) > 1:
        raise ExportError(
            f"the model {quoted(name)} is offered twice, as {' and '.join(places)}; uninstall one "
            "of the packages"
        )
    return _load(found[0])


def _offered() -> list[EntryPoint]:
    return [point for point in entry_points(group=GROUP) if point.name not in RECIPES]


def _load(point: EntryPoint) -> Recipe:
    try:
        recipe: object = point.load()
    except Exception as exc:  # whatever a package of somebody else's raises
        _logger.debug("%s does not load", point.value, exc_info=exc)
        raise ExportError(
            f"the recipe {quoted(point.name)} does not load from {point.value} ({one_line(exc)}); "
            "correct its package, or install it again"
        ) from exc
    if not isinstance(recipe, Recipe) or recipe.name != point.name:
        what = (
            f"the recipe {quoted(recipe.name)}"
            if isinstance(recipe, Recipe)
            else f"a {type(recipe).__name__}"
        )
        raise ExportError(
            f"{point.value} is {what}, want a Recipe called {quoted(point.name)}; correct its "
            "package"
        )
    return recipe


__all__ = [
    "DECODER",
    "GROUP",
    "RECIPES",
    "ComponentRecipe",
    "DecoderVariant",
    "Recipe",
    "SchedulerVariant",
    "TensorRecipe",
    "find_recipe",
    "recipe_names",
]
