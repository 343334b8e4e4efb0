"""How the denoiser of Stable Video Diffusion is told what stands beside a picture."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mvsdk_export.networks.svd.forms import ADDED_FORMS


class AddedSinusoids(nn.Module):
    """Sinusoids of the three added values, before two linear layers make an embedding of them.

    Args:
        dim: Even width of the sinusoids of each value.
    """

    NPU_FORM: ClassVar[str] = "tables"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.form = "angles"

    def forward(self, added_time_ids: Tensor) -> Tensor:
        """Map `(B, 3)`, as `SVDUNet.forward` takes it, to `(B, 3 * dim)`."""
        return ADDED_FORMS[self.form](added_time_ids, self.dim)
