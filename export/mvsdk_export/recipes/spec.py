"""What a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]

DENOISERS = ("unet", "transformer")
"""Components that run once per step; the others run once per clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecipe:
    """Name, symbolic shape and type of a graph's input or output."""

    name: str
    shape: tuple[str | int, ...]
    """Sizes, or names of sizes: those of `shapes.graph_sizes`."""
    dtype: Literal["float32", "int32", "uint8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRecipe:
    """One graph of the pipeline."""

    name: str
    network: str
    """`"module:class"` of the network; its configuration is read from the model folder."""
    config: str
    """`"module:class"` of the network's configuration dataclass."""
    folder: str
    """Subfolder of the model folder that holds configuration and weights."""
    weights: str
    """File name of the weights in that folder."""
    wrapper: str | None = None
    """`"module:class"` of a module around the network that is what phones get; None for none."""
    inputs: tuple[TensorRecipe, ...]
    outputs: tuple[TensorRecipe, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model becomes a bundle."""

    name: str
    task: Literal["text_to_video", "image_to_video", "video_to_video"]
    components: tuple[ComponentRecipe, ...]
    num_frames: int
    height: int
    width: int
    fps: int
    frame_range: tuple[int, int]
    """Smallest and largest number of frames that the networks make sense of."""
    size_multiple: int
    """Height and width must be divisible by this."""
    size_range: tuple[int, int]
    """Smallest and largest height or width, pixels."""
    steps: tuple[int, ...]
    """Step counts whose schedules go into the bundle."""
    default_steps: int
    calibration_prompts: tuple[str, ...]
    """Prompts whose whole trajectories calibrate the quantisation."""
    verification_prompts: tuple[str, ...]
    """Prompts of the parity check; none of them is among the calibration prompts."""
    floors_db: Mapping[str, Mapping[str, float]]
    """Precision -> component or "end_to_end" -> lowest accepted parity, dB."""
    licences: Mapping[str, str]
    """Licence -> what it applies to."""

    def component(self, name: str) -> ComponentRecipe:
        """Return the component of that name."""
        return next(c for c in self.components if c.name == name)
