"""Residual blocks, resizing and embeddings of Stable Video Diffusion."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.layers.blocks import GroupNorm, PointwiseConv, Projection, SiLU
from mvsdk_export.layers.parts import FRAME_FUNCTIONS
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


class TokenProjection(Projection):
    """Linear layer over the tokens of every frame."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "map", "float": "matmul"}


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


class TimeMixer(nn.Module):
    """The learned share of the temporal branch in the output of a block.

    Args:
        initial: First value of the factor, whose sigmoid is a share.
        of_spatial: True if the factor weighs the spatial branch (denoiser), False if it weighs
            the temporal one (decoder).

    Reference:
        Blattmann et al. 2023, arXiv:2304.08818, eq. 3.
    """

    def __init__(self, initial: float, *, of_spatial: bool) -> None:
        super().__init__()
        self.of_spatial = of_spatial
        self.mix_factor = nn.Parameter(torch.full((1,), initial))

    def forward(self, gate: Tensor | None = None) -> Tensor:
        """Return the share `(1,)` of the temporal branch, times a gate if there is one."""
        share = torch.sigmoid(-self.mix_factor if self.of_spatial else self.mix_factor)
        return share if gate is None else share * gate


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


class TemporalResBlock(nn.Module):
    """What two convolutions over neighbouring frames add to a clip.

    It is computed in the layout `(B, C, F, P)`, P positions: groups are normalised over all frames
    of a clip, and convolutions over frames have two dimensions.
    """

    def __init__(
        self, channels: int, *, embedding_dim: int | None, groups: int, eps: float
    ) -> None:
        super().__init__()
        self.activation = SiLU()
        self.norm1 = GroupNorm(groups, channels, eps)
        self.conv1 = FrameConv(channels, channels)
        self.time_emb_proj = nn.Linear(embedding_dim, channels) if embedding_dim else None
        self.norm2 = GroupNorm(groups, channels, eps)
        self.conv2 = FrameConv(channels, channels)

    def forward(self, x: Tensor, num_frames: int, embedding: Tensor | None = None) -> Tensor:
        """Map `(B * F, C, H, W)` to the same shape; `embedding` as in `ResBlock`."""
        h = self.conv1(self.activation(self.norm1(frames_to_rows(x, num_frames))))
        if self.time_emb_proj is not None:
            h = h + self.time_emb_proj(embedding)[:, :, None, None]
        return rows_to_frames(self.conv2(self.activation(self.norm2(h))), x.shape)


class SpatioTemporalResBlock(nn.Module):
    """A residual block of every frame, and one over the frames that is mixed in.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding_dim: Width of the embedding, None for blocks without one.
        groups: Groups of the normalisations.
        eps: Added to the variance, in the spatial block.
        temporal_eps: The same in the temporal block.
        mixer: How much of the temporal block is mixed in.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_dim: int | None,
        groups: int,
        eps: float,
        temporal_eps: float,
        mixer: TimeMixer,
    ) -> None:
        super().__init__()
        self.spatial_res_block = ResBlock(
            in_channels, out_channels, embedding_dim=embedding_dim, groups=groups, eps=eps
        )
        self.temporal_res_block: TemporalResBlock | None = TemporalResBlock(
            out_channels, embedding_dim=embedding_dim, groups=groups, eps=temporal_eps
        )
        self.time_mixer: TimeMixer | None = mixer
        self.gate: Tensor | None = None

    @property
    def is_pruned(self) -> bool:
        """True if the temporal block is gone."""
        return self.temporal_res_block is None

    def prune_(self) -> None:
        """Remove the temporal block: what is left is the residual block of an image network."""
        self.temporal_res_block = self.time_mixer = self.gate = None

    def forward(self, x: Tensor, num_frames: int, embedding: Tensor | None = None) -> Tensor:
        """Map `(B * F, in_channels, H, W)` to `(B * F, out_channels, H, W)`.

        Args:
            x: Frames of B clips.
            num_frames: Frames of one clip.
            embedding: `(B, embedding_dim)` behind its activation, None without one.
        """
        x = self.spatial_res_block(x, embedding)
        if self.temporal_res_block is None or self.time_mixer is None:
            return x
        return x + self.time_mixer(self.gate) * self.temporal_res_block(x, num_frames, embedding)


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
