"""`mvsdk verify`: hold a bundle to the float32 PyTorch reference and write the results into it."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvsdk.bundle import Bundle
from mvsdk.cache import cache_folder
from mvsdk.cli.command import Command
from mvsdk.cli.output import say, show, show_json
from mvsdk.errors import InputError, MvsdkError, OutputError
from mvsdk_export.checkpoints import MODEL_CARD, default_model_folder, open_model
from mvsdk_export.commands import require_toolchain
from mvsdk_export.commands.export import variant_table
from mvsdk_export.recipes import Recipe, find_recipe

if TYPE_CHECKING:
    from mvsdk_export.checkpoints import ModelFolder


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=Path,
        help="model folder that the bundle was made of (default: the weights shipped with mvsdk)",
    )
    parser.add_argument(
        "--pictures", metavar="DIR", type=Path, help="pictures to verify image-to-video with"
    )
    parser.add_argument("--json", action="store_true", help="print the records as JSON")


def _run(options: argparse.Namespace) -> int:
    bundle = Bundle.open(options.bundle, verify=True)
    recipe = _find_recipe(bundle)
    if not os.access(bundle.path, os.W_OK):
        raise OutputError(
            f"cannot write the results into {bundle.path.name}: the folder is not writable; "
            "copy the bundle to a folder that you may write to"
        )
    needed = ["torch", "onnx", "safetensors"]
    targets = {v.target for part in bundle.manifest.components.values() for v in part.variants}
    if "snapdragon" in targets:
        require_toolchain(*needed, "onnxruntime_qnn", command="verify", extra="snapdragon")
    require_toolchain(*needed, command="verify")
    path = options.checkpoint or default_model_folder(recipe.name)
    folder = open_model(path, recipe)
    _check_source(bundle, folder)
    from mvsdk_export.export import verify_bundle
    from mvsdk_export.stages import StageRunner
    from mvsdk_export.verify import check_parity

    with StageRunner(cache_folder() / "verify") as runner:
        try:
            records = verify_bundle(bundle, folder, runner, say, pictures=options.pictures)
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
            f"{bundle.path.name} was made by the recipe {name[:64]!a}, which this mvsdk does not "
            "have; use the version that made it"
        ) from exc


def _check_source(bundle: Bundle, folder: ModelFolder) -> None:
    """Check that the bundle was made of these weights.

    Raises:
        InputError: If a file is another one; the model card is no matter.
    """
    made_of = {ref.path: ref.sha256 for ref in bundle.manifest.source.checkpoint}
    for ref in folder.files_with_hashes():
        if ref.path != MODEL_CARD and made_of.get(ref.path) != ref.sha256:
            raise InputError(
                f"{bundle.path.name} was not made of {ref.path} in {str(folder.path)!r}; "
                "give the model folder that it was made of with --checkpoint"
            )
