"""A decoder that takes the place of a model's own: its public folder, and what a recipe says of it.

The folder holds config.json and the weights of one network; those of an encoder may be among them,
and are not read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvsdk._text import quoted
from mvsdk_export.checkpoints.documents import Document, read_document
from mvsdk_export.checkpoints.locations import find_folder, locate
from mvsdk_export.checkpoints.public import parse_public_config
from mvsdk_export.checkpoints.weight_files import WeightFiles, find_weights
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families import DecoderVariant, Recipe
from mvsdk_export.families.public import VARIANTS

CONFIG_FILE = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderFolder:
    """An opened folder of a decoder. Make one with `open_decoder`."""

    path: Path
    """Absolute path of the folder, symbolic links resolved."""
    variant: DecoderVariant
    """What it is to the recipe."""
    _document: Document

    @property
    def folder(self) -> str:
        """What bundles and messages call this folder."""
        return self.variant.decoder.folder

    def load_config(self) -> Any:
        """Return the configuration dataclass of the network.

        Raises:
            CheckpointError: If config.json is wrong.
        """
        return parse_public_config(self._document, self.variant.decoder, self.variant.public)

    def find_weights(self) -> WeightFiles:
        """Find the weights.

        Raises:
            CheckpointError: If there are none, a file is damaged or a pickle, or outside the
                folder.
        """
        return find_weights(self.path, replace(self.variant.decoder, folder=""), VARIANTS)


def open_decoder(path: Path, recipe: Recipe) -> DecoderFolder:
    """Open the folder of a decoder for models of a recipe; weights need not be there.

    Raises:
        CheckpointError: If the recipe knows no other decoder, or this is no such folder.
    """
    if recipe.light_decoder is None:
        raise CheckpointError(
            f"{recipe.name} has no light decoder, so {quoted(path)} cannot take the place of its "
            "own; leave --decoder out"
        )
    root = find_folder(path, holds=CONFIG_FILE, what="folder of a decoder")
    document = read_document(locate(root, CONFIG_FILE))
    return DecoderFolder(path=root, variant=recipe.light_decoder, _document=document)
