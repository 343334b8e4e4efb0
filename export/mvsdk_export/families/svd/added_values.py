"""How the denoiser of Stable Video Diffusion is told what stands beside a picture."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mvsdk_export.families.svd.implementations import ADDED_FUNCTIONS
from mvsdk_export.layers.selection import Implementations


class AddedSinusoids(nn.Module):
    """Sinusoids of the three added values, before two linear layers make an embedding of them.

    Args:
        dim: Even width of the sinusoids of each value.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {
        "htp": "tables",
        "xnnpack": "angles",  # exact in float32
    }

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.implementation = "angles"

    def forward(self, added_time_ids: Tensor) -> Tensor:
        """Map `(B, 3)`, as `SVDUNet.forward` takes it, to `(B, 3 * dim)`."""
        return ADDED_FUNCTIONS[self.implementation](added_time_ids, self.dim)
