"""Embeddings of scalars, as diffusion models have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.layers.blocks import SiLU
from mvsdk_export.layers.selection import Implementations

PERIOD = 10_000.0
"""Longest period of a sinusoid, in units of 2 pi."""


def sinusoids(values: Tensor, dim: int) -> Tensor:
    """Embed scalars by cosines and sines, frequencies falling from 1 to about 1 / PERIOD.

    Args:
        values: `(N,)` float32, in any unit.
        dim: Even width of the embedding.

    Returns:
        `(N, dim)` float32, cosines first.

    Reference:
        Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=values.device) / half
    angles = values[:, None] * torch.exp(exponents * -math.log(PERIOD))[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def interpolated_sinusoids(values: Tensor, most: float, rows_per_unit: int, dim: int) -> Tensor:
    """Embed values by rows of a table that is known before anything runs, linear between rows.

    Half precision rounds angles of some hundreds to half a radian. What picks a row is exact there
    for values that have one, below 2048.

    Args:
        values: `(B, 1)` float32, 0 to `most`.
        most: Largest value.
        rows_per_unit: Rows from one whole value to the next.
        dim: Even width of the embedding.

    Returns:
        `(B, dim)`, as `sinusoids` orders it.
    """
    rows = torch.arange(int(most * rows_per_unit) + 1, dtype=values.dtype, device=values.device)
    shares = F.relu(1 - (values * rows_per_unit - rows).abs())
    return shares @ sinusoids(rows / rows_per_unit, dim)


class TimeSinusoids(nn.Module):
    """Sinusoids of a training timestep, before two linear layers make an embedding of them.

    Args:
        dim: Even width of the sinusoids.
        most: Largest timestep.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "table", "xnnpack": "angles"}

    def __init__(self, dim: int, most: int) -> None:
        super().__init__()
        self.dim = dim
        self.most = most
        self.implementation = "angles"

    def forward(self, timestep: Tensor) -> Tensor:
        """Map `(B,)` to `(B, dim)`."""
        return TIME_FUNCTIONS[self.implementation](timestep, self.dim, self.most)


def time_angles(timestep: Tensor, dim: int, most: int) -> Tensor:
    """Compute every angle."""
    del most
    return sinusoids(timestep, dim)


def time_table(timestep: Tensor, dim: int, most: int) -> Tensor:
    """Pick a row for each whole timestep; between two of them the row is interpolated."""
    return interpolated_sinusoids(timestep[:, None], most, 1, dim)


TIME_FUNCTIONS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "angles": time_angles,
    "table": time_table,
}


class Mlp(nn.Module):
    """Two linear layers that turn sinusoids into an embedding."""

    def __init__(self, in_features: int, hidden: int, out_features: int) -> None:
        super().__init__()
        self.activation = SiLU()
        self.linear_1 = nn.Linear(in_features, hidden)
        self.linear_2 = nn.Linear(hidden, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, in_features)` to `(N, out_features)`."""
        return self.linear_2(self.activation(self.linear_1(x)))
