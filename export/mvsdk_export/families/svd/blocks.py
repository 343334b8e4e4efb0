"""Residual blocks, resizing and embeddings of Stable Video Diffusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvsdk_export.layers.blocks import GroupNorm, SiLU
from mvsdk_export.layers.resnet import FrameConv, ResBlock, frames_to_rows, rows_to_frames


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
