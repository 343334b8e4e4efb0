"""Where a denoiser's graph is cut in two: what runs once for a clip, and what runs at every step.

A cut is data: names of modules whose results cross. `planning.conditioning` finds it, recipes and
pipelines are changed by it (`families.conditioning`), networks too (`checkpoints.cut_graph`), and
the manifest of a bundle keeps it, so that what the bundle is held to is cut alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

ArgumentDType = Literal["float32", "int32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An input of the whole graph, as its network takes it: pixels are float32."""

    name: str
    shape: tuple[int, ...]
    dtype: ArgumentDType


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """What one call of a module gives, float32: it is made once, and taken at every step."""

    name: str
    """Of the tensor, an output of one graph and an input of the other."""
    module: str
    """Path of the module in the whole graph."""
    call: int
    """Which of its calls in one evaluation of the whole graph, from 0 on."""
    calls: int
    """How many there are. Where all cross, the graph of the steps is without its weights."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A component's graph as two: the one of role `conditioning`, and what is left of it."""

    component: str
    """The denoiser, which keeps its name."""
    name: str
    """Of the component that runs once for a clip."""
    arguments: tuple[Argument, ...]
    """Inputs of the whole graph, in order."""
    conditioning_inputs: tuple[str, ...]
    """Those that the graph of the conditioning takes."""
    step_inputs: tuple[str, ...]
    """Those that the graph of the steps still takes, before what crosses."""
    crossings: tuple[Crossing, ...]

    @property
    def crossing_bytes(self) -> int:
        """Return the float32 bytes of all that crosses."""
        return sum(4 * prod(item.shape) for item in self.crossings)
