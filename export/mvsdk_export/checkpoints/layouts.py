"""Kinds of model folders: ours, and the public ones that recipes know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mvsdk._text import quoted
from mvsdk_export.checkpoints.configs import parse_config
from mvsdk_export.checkpoints.documents import Document, read_document, unsupported
from mvsdk_export.checkpoints.public import check_index, check_values, parse_public_configs
from mvsdk_export.checkpoints.scheduler import PUBLIC_READERS, Scheduler, read_scheduler
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families import RECIPES, Recipe, recipe_names
from mvsdk_export.families.public import VARIANTS, PublicModel
from mvsdk_export.families.recipe import resolve

FORMAT_VERSION = 1
CLASS_NAME = "MvsdkPipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one kind of folder says what it holds."""

    read_index: Callable[[Document], str]
    """Checks model_index.json and returns the name of the recipe."""
    read_scheduler: Callable[[Path, Sequence[str]], Scheduler]
    """Takes scheduler_config.json and the kinds that the recipe allows."""
    parse_configs: Callable[[Mapping[str, Document], Recipe], dict[str, Any]]
    """From the config.json of every subfolder to the configuration of every component."""
    variants: tuple[str, ...] = ()
    """Variants of weights that are read where the plain ones are missing."""
    is_own: bool = False
    """Whether we write such folders."""
    further: Mapping[str, Callable[[Document], None]]
    """Further JSON files of every such folder, and what checks them."""


def parse_own_configs(documents: Mapping[str, Document], recipe: Recipe) -> dict[str, Any]:
    """Build the configurations of all components of a folder that we wrote.

    Raises:
        CheckpointError: With the first field that is unknown, missing or of the wrong type.
    """
    return {
        part.name: parse_config(documents[part.folder], resolve(part.config))
        for part in recipe.components
    }


def _read_own_index(document: Document) -> str:
    document.check_keys(("_class_name", "recipe", "format_version"))
    name = document.choice("recipe", recipe_names())
    if document.integer("format_version", 1, 1000) > FORMAT_VERSION:
        raise CheckpointError(
            f"model folder {quoted(document.path.parent)} has format_version "
            f"{document.values['format_version']}, this mvsdk reads up to {FORMAT_VERSION}; "
            "update mvsdk"
        )
    return name


def find_layout(document: Document) -> Layout:
    """Return the kind of the folder that a model_index.json lies in.

    Raises:
        CheckpointError: If no recipe has models of its class.
    """
    if document.values.get("_class_name") == CLASS_NAME:
        return OWN
    recipes = _public_recipes()
    known = [CLASS_NAME, *(name for _, x in recipes for name in x.pipelines)]
    name = document.values.get("_class_name")
    if type(name) is str and name not in known:
        usual = [CLASS_NAME, *(x.pipelines[0] for _, x in recipes)]
        raise unsupported(quoted(document.path), name, usual)
    name = document.choice("_class_name", known)
    recipe, public = next(item for item in recipes if name in item[1].pipelines)
    return _public_layout(recipe, public)


def _public_recipes() -> list[tuple[str, PublicModel]]:
    """Return the recipes of this package whose models come in public folders."""
    return [(name, x.public) for name, x in RECIPES.items() if x.public is not None]


def _public_layout(recipe: str, public: PublicModel) -> Layout:
    def read_index(document: Document) -> str:
        check_index(document, public)
        return recipe

    def read_scheduler_file(path: Path, kinds: Sequence[str]) -> Scheduler:
        del kinds  # such a folder has one kind
        return PUBLIC_READERS[public.scheduler](read_document(path))

    def parse_configs(documents: Mapping[str, Document], model: Recipe) -> dict[str, Any]:
        return parse_public_configs(documents, model, public)

    return Layout(
        read_index=read_index,
        read_scheduler=read_scheduler_file,
        parse_configs=parse_configs,
        variants=VARIANTS,
        further={
            name: partial(check_values, values=values) for name, values in public.documents.items()
        },
    )


OWN = Layout(
    read_index=_read_own_index,
    read_scheduler=read_scheduler,
    parse_configs=parse_own_configs,
    is_own=True,
    further={},
)
"""Folders that we write."""
