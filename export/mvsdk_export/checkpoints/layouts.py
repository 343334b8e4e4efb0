"""Kinds of model folders: ours, and public ones of Stable Video Diffusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvsdk._text import quoted
from mvsdk_export.checkpoints import public
from mvsdk_export.checkpoints.configs import parse_config
from mvsdk_export.checkpoints.documents import Document, unsupported
from mvsdk_export.checkpoints.scheduler import Scheduler, read_public_scheduler, read_scheduler
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families import Recipe, recipe_names
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
        CheckpointError: If it is none of `LAYOUTS`.
    """
    name = document.values.get("_class_name")
    if type(name) is str and name not in LAYOUTS:
        raise unsupported(quoted(document.path), name, LAYOUTS)
    return LAYOUTS[document.choice("_class_name", tuple(LAYOUTS))]


def _read_public_scheduler(path: Path, kinds: Sequence[str]) -> Scheduler:
    del kinds  # such a folder has one kind
    return read_public_scheduler(path)


LAYOUTS: dict[str, Layout] = {
    CLASS_NAME: Layout(
        read_index=_read_own_index,
        read_scheduler=read_scheduler,
        parse_configs=parse_own_configs,
        further={},
    ),
    public.CLASS_NAME: Layout(
        read_index=public.read_public_index,
        read_scheduler=_read_public_scheduler,
        parse_configs=public.parse_public_configs,
        variants=public.VARIANTS,
        further={public.PREPROCESSOR_FILE: public.check_preprocessor},
    ),
}
"""By the `_class_name` of model_index.json."""
