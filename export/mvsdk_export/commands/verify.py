"""`mvsdk verify`: hold a bundle to the float32 PyTorch reference and write the results into it."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvsdk.bundle import Bundle
from mvsdk.cache import cache_folder
from mvsdk.cli.command import Command
from mvsdk.cli.output import say, show, show_json
from mvsdk.errors import InputError
from mvsdk_export.checkpoints import default_model_folder, open_model_folder
from mvsdk_export.commands import require_toolchain
from mvsdk_export.commands.export import variant_table
from mvsdk_export.recipes import find_recipe

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
    parser.add_argument("--json", action="store_true", help="print the records as JSON")


def _run(options: argparse.Namespace) -> int:
    bundle = Bundle.open(options.bundle, verify=True)
    recipe = find_recipe(bundle.manifest.source.recipe)
    needed = ["torch", "onnx", "safetensors"]
    targets = {v.target for part in bundle.manifest.components.values() for v in part.variants}
    if "snapdragon" in targets:
        require_toolchain(*needed, "onnxruntime_qnn", command="verify", extra="snapdragon")
    require_toolchain(*needed, command="verify")
    path = options.checkpoint or default_model_folder(recipe.name)
    folder = open_model_folder(path, recipe)
    _check_source(bundle, folder)
    from mvsdk_export.export import verify_bundle
    from mvsdk_export.stages import StageRunner
    from mvsdk_export.verify import check_parity

    runner = StageRunner(cache_folder() / "verify")
    try:
        records = verify_bundle(bundle, folder, runner, say)
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


def _check_source(bundle: Bundle, folder: ModelFolder) -> None:
    """Check that the bundle was made of these weights.

    Raises:
        InputError: If a weight file is another one.
    """
    made_of = {ref.path: ref.sha256 for ref in bundle.manifest.source.checkpoint}
    for ref in folder.files_with_hashes():
        if ref.path.endswith(".safetensors") and made_of.get(ref.path) != ref.sha256:
            raise InputError(
                f"{bundle.path.name} was not made of {ref.path} in {str(folder.path)!r}; "
                "give the model folder that it was made of with --checkpoint"
            )
