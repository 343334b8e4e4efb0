"""Residual blocks and resizing of latent diffusion models, with their public state-dict keys.

Reference:
    Rombach et al. 2022, arXiv:2112.10752; `ResnetBlock2D` of diffusers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.layers.blocks import GroupNorm, PointwiseConv, SiLU
from mvsdk_export.layers.parts import FRAME_FUNCTIONS
from mvsdk_export.layers.selection import Implementations


class ResBlock(nn.Module):
    """Two 3x3 convolutions of every frame; an embedding is added between them.

    Its NPU form runs one frame after the other where all together have no room on the chip: what is
    between the first and the last operator then stays there.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding_dim: Width of the embedding, None for a block without one.
        groups: Groups of the normalisation.
        eps: Added to the variance.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "frames", "float": "whole"}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_dim: int | None,
        groups: int,
        eps: float,
    ) -> None:
        super().__init__()
        self.implementation = "whole"
        self.widest = max(in_channels, out_channels)
        self.activation = SiLU()
        self.norm1 = GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding_dim, out_channels) if embedding_dim else None
        self.norm2 = GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = (
            PointwiseConv(in_channels, out_channels) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map `(B * F, in_channels, H, W)` to `(B * F, out_channels, H, W)`.

        `embedding` is `(B, embedding_dim)`, behind its activation.
        """
        shift = None if self.time_emb_proj is None else self.time_emb_proj(embedding)
        if shift is not None and shift.shape[0] > 1:  # frames of several clips
            return self._run(x, shift)
        return FRAME_FUNCTIONS[self.implementation](
            x, lambda frames: self._run(frames, shift), self.widest
        )

    def _run(self, x: Tensor, shift: Tensor | None) -> Tensor:
        h = self.conv1(self.activation(self.norm1(x)))
        if shift is not None:
            h = h + per_frame(shift, h.shape[0] // shift.shape[0])[:, :, None, None]
        h = self.conv2(self.activation(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class FrameConv(nn.Conv3d):
    """Convolution over three neighbouring frames, position by position.

    The weight is the `(D, C, 3, 1, 1)` of public checkpoints, and no tensor has their rank.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, input: Tensor) -> Tensor:
        """Map `(B, in_channels, F, P)` to `(B, out_channels, F, P)`."""
        return F.conv2d(input, self.weight[..., 0], self.bias, padding=(1, 0))


class Downsample(nn.Module):
    """Halve height and width by a convolution.

    Args:
        channels: Channels of input and output.
        padding: 1 pads all sides; 0 pads only the lower and the right one, as image encoders do.
    """

    def __init__(self, channels: int, *, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, C, H, W)` to `(N, C, H / 2, W / 2)`, rounded up."""
        return self.conv(x if self.conv.padding[0] else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width by repetition, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Map `(N, C, H, W)` to `(N, C, 2 H, 2 W)`, or to another size."""
        if size is None or size == (2 * x.shape[2], 2 * x.shape[3]):
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


def per_frame(x: Tensor, num_frames: int) -> Tensor:
    """Repeat what belongs to a clip for its frames; the only clip's is broadcast as it is."""
    return x if x.shape[0] == 1 else x.repeat_interleave(num_frames, dim=0)


def frames_to_rows(x: Tensor, num_frames: int) -> Tensor:
    """Lay out `(B * F, C, H, W)` as `(B, C, F, H * W)`."""
    n, channels, h, w = x.shape
    return x.reshape(n // num_frames, num_frames, channels, h * w).transpose(1, 2)


def rows_to_frames(x: Tensor, shape: torch.Size) -> Tensor:
    """Lay out `(B, C, F, H * W)` as `(B * F, C, H, W)`, the given shape."""
    return x.transpose(1, 2).reshape(shape)
