"""Public folders, as diffusers and transformers write them, read by what a recipe says of them.

`families.public` has the types; a family has the data, beside its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args, get_origin, get_type_hints

from mvsdk._text import quoted
from mvsdk_export.checkpoints.building import with_frames
from mvsdk_export.checkpoints.configs import parse_config
from mvsdk_export.checkpoints.documents import Document, unsupported
from mvsdk_export.families import ComponentRecipe, Recipe
from mvsdk_export.families.public import PublicConfig, PublicModel
from mvsdk_export.families.recipe import resolve

_INDEX_UNUSED = ("_diffusers_version", "_name_or_path", "requires_safety_checker")
"""Keys of model_index.json that change nothing. So do parts that are null: pipelines name those
that they can do without."""


def check_index(document: Document, public: PublicModel) -> None:
    """Check model_index.json.

    Raises:
        CheckpointError: If the pipeline has other parts than the recipe knows.
    """
    for part, supported in public.parts.items():
        _check_part(document, part, supported)
    absent = [key for key, value in document.values.items() if value in (None, [None, None])]
    document.check_keys(("_class_name", *public.parts), (*public.ignored, *_INDEX_UNUSED, *absent))


def _check_part(document: Document, part: str, supported: Sequence[tuple[str, str]]) -> None:
    """Check the class of a part, which the index writes as its library and its name."""
    value, known = document.values.get(part), [list(item) for item in supported]
    if value is None:
        return  # absent: what must be there is checked elsewhere
    if isinstance(value, list) and all(type(word) is str for word in cast("list[object]", value)):
        if value not in known:
            raise unsupported(f"{part} of {quoted(document.path)}", value, known)
    else:
        document.fail(part, f"a library and a class, {' and '.join(supported[0])}")


def check_values(document: Document, values: Mapping[str, object]) -> None:
    """Check that a further file of a folder has some values.

    Raises:
        CheckpointError: If not.
    """
    for key in values:
        if key not in document.values:
            document.fail(key, "what the public model has")
    document.check_fixed(values)


def parse_public_configs(
    documents: Mapping[str, Document], recipe: Recipe, public: PublicModel
) -> dict[str, Any]:
    """Build the configurations of all components.

    Args:
        documents: Subfolder -> its config.json.
        recipe: The model.
        public: What the recipe says of its public folders.

    Returns:
        Component name -> configuration dataclass of its network. The autoencoder decodes clips of
        the length that the denoiser makes: its own file names none.

    Raises:
        CheckpointError: With the first key that is unknown, missing, or of a wrong value.
    """
    configs = {
        part.name: parse_public_config(documents[part.folder], part, public.configs[part.folder])
        for part in recipe.components
    }
    num_frames = configs[recipe.denoiser].num_frames
    return {name: with_frames(config, num_frames) for name, config in configs.items()}


def parse_public_config(document: Document, part: ComponentRecipe, public: PublicConfig) -> Any:
    """Build the configuration of one component from its public config.json.

    Raises:
        CheckpointError: As `parse_public_configs`.
    """
    config_class = resolve(part.config)
    further = check_public_config(document, public)
    hints = get_type_hints(config_class)
    values = {
        name: _as_ours(
            document.values.get(public.names.get(name, name), default),
            hints[name],
            per_level=name in public.per_level,
        )
        for name, default in public.fields.items()
    }
    return parse_config(Document(document.path, {**values, **further}), config_class)


def check_public_config(document: Document, public: PublicConfig) -> Mapping[str, object]:
    """Check a public config.json, but for the values of fields; return what `read` makes of it.

    Raises:
        CheckpointError: As `parse_public_configs`.
    """
    for key, supported in public.classes.items():  # first: another class has other keys
        document.check_class(key, supported)
    document.check_fixed(public.fixed)
    fields = [public.names.get(name, name) for name in public.fields]
    known = (*public.classes, *fields, *public.further, *public.fixed, *public.unused)
    document.check_keys(public.required, [key for key in known if key not in public.required])
    return {} if public.read is None else public.read(document)


def _as_ours(value: object, hint: Any, *, per_level: bool) -> object:
    """Return a value as our files spell it.

    Whole numbers have no fraction. What a network may have one of, or one for each level, is what
    our field is; levels that differ where ours has one number are left as they are, an error.
    """
    items = cast("list[object]", value) if isinstance(value, list) else None
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if Ellipsis in kinds:
            return (
                value if items is None else [_as_ours(x, kinds[0], per_level=False) for x in items]
            )
        if per_level and type(value) in (int, float):
            items = [value] * len(kinds)
        if items is None or len(items) != len(kinds):
            return value
        return [_as_ours(item, kinds[0], per_level=False) for item in items]
    if per_level and items is not None and items and items.count(items[0]) == len(items):
        return _as_ours(items[0], hint, per_level=False)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
