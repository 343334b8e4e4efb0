"""Families of models: each is a folder here and a line in `_PLACES`.

What a folder says to all others is its recipe: light data on how a model becomes a bundle, which
names networks by `"module:attribute"` and imports none. Any other package offers families of its
own as entry points of the group `mvsdk.families`, each the name of a recipe and where it is:

    [project.entry-points."mvsdk.families"]
    dancer = "dancer.recipe:DANCER"

A recipe is imported when it is first asked for, in the processes of jobs too.
docs/adding_a_family.md shows a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from mvsdk._text import quoted
from mvsdk_export.errors import ExportError
from mvsdk_export.families.recipe import (
    DECODER,
    ComponentRecipe,
    DecoderVariant,
    Recipe,
    SchedulerVariant,
    TensorRecipe,
    resolve,
)
from mvsdk_export.offers import load_offer

GROUP = "mvsdk.families"
"""Entry points of other packages: each names a `Recipe`, and is called as that is."""

_PLACES: Mapping[str, str] = {
    "animator": "mvsdk_export.families.animator.recipe:ANIMATOR",
    "mobilevd": "mvsdk_export.families.svd.recipe:MOBILEVD",
    "stable_diffusion": "mvsdk_export.families.stable_diffusion.recipe:STABLE_DIFFUSION",
    "sticker": "mvsdk_export.families.sticker.recipe:STICKER",
}
"""Name -> where the recipe is. No other package replaces one of them."""


class _Recipes(Mapping[str, Recipe]):
    """Recipes of this package by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Recipe:
        return resolve(_PLACES[name])

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)

    def __contains__(self, name: object) -> bool:
        return name in _PLACES


RECIPES: Mapping[str, Recipe] = _Recipes()
"""Those of this package."""


def recipe_names() -> tuple[str, ...]:
    """Return the names of all recipes, sorted, without importing other packages."""
    return tuple(sorted({*RECIPES, *(point.name for point in _offered())}))


def place_of(name: str) -> str:
    """Return where a recipe is, as `"module:attribute"`.

    Raises:
        ExportError: No recipe has that name, or two packages offer it.
    """
    return _PLACES[name] if name in _PLACES else _find_point(name).value


def find_recipe(name: str) -> Recipe:
    """Return the recipe of a model.

    Raises:
        ExportError: No recipe has that name, or the package that offers it is broken.
    """
    return RECIPES[name] if name in RECIPES else load_offer(_find_point(name), Recipe, "recipe")


def _find_point(name: str) -> EntryPoint:
    found = [point for point in _offered() if point.name == name]
    if not found:
        raise ExportError(f"unknown model {quoted(name)}; known: {', '.join(recipe_names())}")
    places = list(dict.fromkeys(point.value for point in found))
    if len(places) > 1:
        raise ExportError(
            f"the model {quoted(name)} is offered twice, as {' and '.join(places)}; uninstall one "
            "of the packages"
        )
    return found[0]


def _offered() -> list[EntryPoint]:
    return [point for point in entry_points(group=GROUP) if point.name not in RECIPES]


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
    "place_of",
    "recipe_names",
]
