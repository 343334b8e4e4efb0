"""Which graph of which size a job is about, and how it is loaded from a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvsdk_export.checkpoints.additions import Additions
from mvsdk_export.checkpoints.folder import ModelFolder, open_model
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.families.cut import Cut
from mvsdk_export.families.shapes import graph_sizes, input_shapes
from mvsdk_export.jobs.job import Files

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSize:
    """Size of the clips that graphs make."""

    num_frames: int
    height: int
    """Pixels."""
    width: int
    decode_frames: int
    """Frames that the decoder takes at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A component at one size, as phones get it."""

    component: str
    size: ClipSize
    guidance: tuple[float, float] | None
    """Classifier-free guidance of the first and the last frame, which the denoiser's graph holds;
    None for none."""
    cuts: tuple[Cut, ...] = ()
    """Where graphs are cut in two, as far as it concerns the component."""

    def recipe(self, folder: ModelFolder) -> ComponentRecipe:
        """Return the recipe of the component."""
        return folder.with_cuts(self.cuts).recipe.component(self.component)

    def load(self, folder: ModelFolder) -> nn.Module:
        """Load the network with what a phone's graph has around it, in evaluation mode."""
        return folder.with_cuts(self.cuts).load_graph(
            self.component,
            num_frames=self.size.num_frames,
            height=self.size.height,
            width=self.size.width,
            guidance=self.guidance,
        )

    def example_inputs(self, folder: ModelFolder) -> dict[str, Tensor]:
        """Return zeros of the shape and type of every input of the network, in order.

        Pixels are float32: the network takes them in [0, 1].
        """
        import torch

        part = self.recipe(folder)
        sizes = graph_sizes(
            folder.configs(),
            num_frames=self.size.num_frames,
            height=self.size.height,
            width=self.size.width,
            decode_frames=self.size.decode_frames,
        )
        shapes = input_shapes(part, sizes)
        return {
            tensor.name: torch.zeros(
                shapes[tensor.name],
                dtype=torch.float32 if tensor.dtype == "uint8" else getattr(torch, tensor.dtype),
            )
            for tensor in part.inputs
        }


def open_files(model: Files) -> ModelFolder:
    """Open the model folder of a job.

    Args:
        model: As `parity.recording.files_of` makes it: the folder, and what is put beside it.
    """
    additions = Additions.of(model.places, model.settings)
    return open_model(model.places["model"], additions=additions)
