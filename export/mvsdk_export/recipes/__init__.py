"""Recipes: light data that says how one model becomes a bundle. Importing them needs no torch.

A recipe names networks by `"module:attribute"`; whoever builds them resolves the names. Adding a
model means adding a file here and a line to `RECIPES`.
"""

from __future__ import annotations

from mvsdk._text import quoted
from mvsdk_export.errors import ExportError
from mvsdk_export.recipes.animator import ANIMATOR
from mvsdk_export.recipes.mobilevd import MOBILEVD
from mvsdk_export.recipes.spec import (
    DECODER,
    DENOISERS,
    ComponentRecipe,
    DecoderVariant,
    Recipe,
    SchedulerVariant,
    TensorRecipe,
)
from mvsdk_export.recipes.sticker import STICKER

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (ANIMATOR, MOBILEVD, STICKER)}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a model.

    Raises:
        ExportError: No recipe has that name.
    """
    if name not in RECIPES:
        raise ExportError(f"unknown model {quoted(name)}; known: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]


__all__ = [
    "DECODER",
    "DENOISERS",
    "RECIPES",
    "ComponentRecipe",
    "DecoderVariant",
    "Recipe",
    "SchedulerVariant",
    "TensorRecipe",
    "find_recipe",
]
