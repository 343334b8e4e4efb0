"""Packages under the names by which Apple's Swift code for Stable Diffusion opens them.

That code (apple/ml-stable-diffusion, StableDiffusionPipeline+Resources.swift) looks into one folder
for `TextEncoder`, `Unet` or `UnetChunk1` and `UnetChunk2`, `VAEDecoder`, `VAEEncoder` and the files
of a tokenizer. It opens compiled models, which Apple's compiler makes on a Mac.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mvsdk._staging import StagingFolder
from mvsdk.bundle import Bundle
from mvsdk.manifest import Variant
from mvsdk_export.targets.coreml.chunks import split_pipeline
from mvsdk_export.targets.coreml.package import read_model

README = "README.txt"
"""Says how to compile the packages."""
COMPILE = "for p in *.mlpackage; do xcrun coremlcompiler compile $p .; done"


def write_resources(bundle: Bundle, variants: Mapping[str, Variant], out: Path) -> list[str]:
    """Write a folder of packages, one for each component or chunk of one.

    Args:
        bundle: Has the packages.
        variants: Component -> which of its variants.
        out: Folder to write; it must not exist.

    Returns:
        Names of what was written.

    Raises:
        OutputError: If the folder exists, or cannot be written.
    """
    staging = StagingFolder(out, replaces=None)
    try:
        staging.create()
        for variant in variants.values():
            _write_package(bundle.model(variant), staging.path)
        tokenizers = bundle.manifest.tokenizers
        for name, tokenizer in tokenizers.items():
            prefix = f"{name}-" if len(tokenizers) > 1 else ""
            shutil.copyfile(bundle.file(tokenizer.file), staging.path / f"{prefix}vocab.json")
        names = sorted(path.name for path in staging.path.iterdir())
        (staging.path / README).write_text(
            f"{bundle.manifest.name}, by mvsdk. On a Mac, in this folder:\n\n    {COMPILE}\n",
            encoding="utf-8",
        )
        staging.publish()
    finally:
        staging.discard()
    return names


def _write_package(source: Path, folder: Path) -> None:
    """Copy a package, or the chunks of a pipeline as packages of their own."""
    if read_model(source).WhichOneof("Type") != "pipeline":
        shutil.copytree(source, folder / source.name)
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for index, chunk in enumerate(split_pipeline(source, Path(scratch)), start=1):
            chunk.rename(folder / f"{source.stem}Chunk{index}.mlpackage")
