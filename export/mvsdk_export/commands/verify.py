"""`mvsdk verify`: hold a bundle to the float32 PyTorch reference and write the results into it."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvsdk._text import quoted
from mvsdk.bundle import Bundle
from mvsdk.cache import cache_folder
from mvsdk.cli.command import Command, named_path
from mvsdk.cli.output import show, show_json
from mvsdk.errors import InputError, MvsdkError, OutputError
from mvsdk_export.checkpoints import MODEL_CARD, default_model_folder, open_model
from mvsdk_export.commands.arguments import (
    add_addition_arguments,
    read_additions,
    read_picture_folder,
)
from mvsdk_export.commands.bar import read_history, shown_progress
from mvsdk_export.commands.export import variant_table
from mvsdk_export.commands.targets import kinds_of, require_kinds
from mvsdk_export.families import Recipe, find_recipe

if TYPE_CHECKING:
    from mvsdk_export.checkpoints import ModelFolder


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=named_path, metavar="BUNDLE")
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=named_path,
        help="model folder that the bundle was made of (default: the weights shipped with mvsdk)",
    )
    parser.add_argument(
        "--decoder",
        metavar="DIR",
        type=named_path,
        help="light decoder that the bundle was made with",
    )
    add_addition_arguments(parser, sampler=False)  # the bundle says which
    parser.add_argument(
        "--pictures", metavar="DIR", type=named_path, help="pictures to verify image-to-video with"
    )
    parser.add_argument("--json", action="store_true", help="print the records as JSON")


def _run(options: argparse.Namespace) -> int:
    bundle = Bundle.open(options.bundle, verify=True)
    bundle.check_path()
    missing = bundle.missing_files()
    if missing:
        raise InputError(
            f"{quoted(bundle.path.name)} lacks {missing[0].path} of a pack, and every variant is "
            "verified; put the files of its packs into the bundle's folder first"
        )
    recipe = _find_recipe(bundle)
    pictures = read_picture_folder(options.pictures, recipe)
    if not os.access(bundle.path, os.W_OK):
        raise OutputError(
            f"cannot write the results into {quoted(bundle.path.name)}: it is not writable; "
            "copy the bundle to a folder that you may write to"
        )
    variants = [v for part in bundle.manifest.components.values() for v in part.variants]
    require_kinds(kinds_of(variants), "verify")
    path = options.checkpoint or default_model_folder(recipe.name)
    from mvsdk_export.parity.recording import read_sampler

    additions = replace(read_additions(options), sampler=read_sampler(bundle.manifest))
    folder = open_model(path, recipe, additions=additions)
    _check_source(bundle, folder)
    from mvsdk_export.export import verify_bundle
    from mvsdk_export.jobs.interrupts import interrupted_once
    from mvsdk_export.jobs.runner import JobRunner
    from mvsdk_export.parity.verify import check_parity

    with JobRunner(cache_folder() / "verify") as runner, interrupted_once():
        try:
            with shown_progress() as display:
                records = verify_bundle(
                    bundle,
                    folder,
                    runner,
                    display.show,
                    pictures=pictures,
                    history=read_history(),
                )
        finally:
            runner.forget()
    manifest = replace(bundle.manifest, verification=tuple(records))
    bundle.replace_manifest(manifest)
    if options.json:
        show_json([asdict(record) for record in records])
    else:
        show(variant_table(manifest))
    check_parity(records)
    return 0


VERIFY = Command(
    name="verify",
    help="hold a bundle to PyTorch, write the results into it",
    add_arguments=_add_arguments,
    run=_run,
)


def _find_recipe(bundle: Bundle) -> Recipe:
    name = bundle.manifest.source.recipe
    try:
        return find_recipe(name)
    except MvsdkError as exc:
        raise InputError(
            f"{quoted(bundle.path.name)} was made by the recipe {quoted(name)}, which this mvsdk "
            "does not have; use the version that made it"
        ) from exc


def _check_source(bundle: Bundle, folder: ModelFolder) -> None:
    """Check that the bundle was made of these weights.

    Raises:
        InputError: If a file is another one, or one side lacks it; the model card is no matter.
    """
    source = bundle.manifest.source
    made_of = {ref.path: ref.sha256 for ref in (*source.checkpoint, *source.lora)}
    files = (*folder.files_with_hashes(), *folder.loras_with_hashes())
    given = {ref.path: ref.sha256 for ref in files}
    for path in sorted((made_of.keys() | given.keys()) - {MODEL_CARD}):
        if made_of.get(path) == given.get(path):
            continue
        name, (option, place) = quoted(bundle.path.name), _option_of(folder, path)
        if path not in given:
            raise InputError(f"{name} was made of {path} too; give it with {option}")
        if path not in made_of and option != "--checkpoint":
            raise InputError(f"{name} was made without {path}; leave {option} out")
        raise InputError(
            f"{name} was not made of {path} in {quoted(place)}; give the model that it was made "
            f"of with {option}"
        )


def _option_of(folder: ModelFolder, path: str) -> tuple[str, Path]:
    """Return the option that gives a file of the model, and the place that it was given."""
    recipe, places = folder.recipe, folder.paths
    part = path.partition("/")[0]
    if recipe.light_decoder is not None and part == recipe.light_decoder.decoder.folder:
        return "--decoder", places.get("decoder", folder.path)
    if recipe.motion is not None and part == recipe.motion.folder:
        return "--motion", places.get("motion", folder.path)
    if part == "lora":
        return "--lora", next((x.path for x in folder.loras), folder.path)
    return "--checkpoint", folder.path
