"""Temporal layers that are added to an image model, behind each of its spatial ones.

Motion modules (AnimateDiff) are residual: they do nothing where their last layer is zero. Layers of
Video LDM are mixed in by a learned share: they do nothing where the image model has all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvsdk_export.layers.blocks import GroupNorm, SiLU
from mvsdk_export.layers.embeddings import sinusoids
from mvsdk_export.layers.resnet import FrameConv, frames_to_rows, rows_to_frames
from mvsdk_export.layers.transformer import FeedForward, FrameAttention, TokenProjection

EPS = 1e-6
"""Added to the variance of normalisations over the frames of a clip."""


def frame_places(num_frames: int, dim: int, device: torch.device) -> Tensor:
    """Embed the places of frames: sine and cosine of one frequency are neighbours.

    Args:
        num_frames: Frames of a clip.
        dim: Even width of the embedding.
        device: Of the result.

    Returns:
        `(num_frames, dim)` float32.

    Reference:
        `SinusoidalPositionalEmbedding` of diffusers; Vaswani et al. 2017, arXiv:1706.03762.
    """
    places = torch.arange(num_frames, dtype=torch.float32, device=device)
    cosines, sines = sinusoids(places, dim).chunk(2, dim=1)
    return torch.stack([sines, cosines], dim=2).flatten(1)


class MotionTransformerLayer(nn.Module):
    """Two attentions between frames and a feed-forward layer, each behind a normalisation.

    Args:
        width: Channels of a token.
        heads: Heads of both attentions.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = FrameAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = FrameAttention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, places: Tensor, num_frames: int) -> Tensor:
        """Map tokens `(B * F, P, width)` to the same shape; `places` is `(B * F, 1, width)`."""
        x = x + self.attn1(self.norm1(x) + places, num_frames)
        x = x + self.attn2(self.norm2(x) + places, num_frames)
        return x + self.ff(self.norm3(x))


class MotionModule(nn.Module):
    """Transformer over the frames, position by position, with a residual connection.

    Args:
        channels: Channels of the maps, and of a token.
        heads: Heads of its attentions.
        layers: Transformer layers.
        groups: Groups of the normalisation.

    Reference:
        Guo et al. 2023, arXiv:2307.04725; `AnimateDiffTransformer3D` of diffusers.
    """

    def __init__(self, channels: int, heads: int, *, layers: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, EPS)
        self.proj_in = TokenProjection(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            MotionTransformerLayer(channels, heads) for _ in range(layers)
        )
        self.proj_out = TokenProjection(channels, channels)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Map `(B * F, channels, H, W)` to the same shape."""
        n, channels, h, w = x.shape
        rows = self.norm(frames_to_rows(x, num_frames))  # (B, C, F, P)
        tokens = rows.permute(0, 2, 3, 1).reshape(n, h * w, channels)
        tokens = self.proj_in(tokens)
        places = frame_places(num_frames, channels, x.device).to(x.dtype)
        places = places.repeat(n // num_frames, 1)[:, None]
        for layer in self.transformer_blocks:
            tokens = layer(tokens, places, num_frames)
        out = self.proj_out(tokens).reshape(n, h, w, channels).permute(0, 3, 1, 2)
        return out + x


class Mixer(nn.Module):
    """The share of the image model in the output of a block, learned.

    The share is clamped to [0, 1]: 1 is the image model exactly, which no sigmoid reaches.

    Reference:
        Blattmann et al. 2023, arXiv:2304.08818, sec. 3.1 and eq. 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return `a x + (1 - a) mixed`, both of one shape."""
        share = 1 - self.alpha.clamp(0.0, 1.0)
        return x + share * (mixed - x)


class MixedConv(nn.Module):
    """Residual convolutions over three neighbouring frames, mixed in."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.activation = SiLU()
        self.norm1 = GroupNorm(groups, channels, EPS)
        self.conv1 = FrameConv(channels, channels)
        self.norm2 = GroupNorm(groups, channels, EPS)
        self.conv2 = FrameConv(channels, channels)
        self.mixer = Mixer()

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Map `(B * F, channels, H, W)` to the same shape."""
        rows = frames_to_rows(x, num_frames)
        h = self.conv1(self.activation(self.norm1(rows)))
        h = self.conv2(self.activation(self.norm2(h)))
        return rows_to_frames(self.mixer(rows, rows + h), x.shape)


class MixedAttention(nn.Module):
    """Attention between frames and a feed-forward layer, mixed in."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, EPS)
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = FrameAttention(channels, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        self.mixer = Mixer()

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Map `(B * F, channels, H, W)` to the same shape."""
        n, channels, h, w = x.shape
        rows = self.norm(frames_to_rows(x, num_frames))
        tokens = rows.permute(0, 2, 3, 1).reshape(n, h * w, channels)
        places = frame_places(num_frames, channels, x.device).to(x.dtype)
        places = places.repeat(n // num_frames, 1)[:, None]
        out = self.attn1(self.norm1(tokens) + places, num_frames)
        out = out + self.ff(self.norm3(tokens + out))
        return self.mixer(x, x + out.reshape(n, h, w, channels).permute(0, 3, 1, 2))


class MixedLayers(nn.Module):
    """What Video LDM adds behind a spatial layer: convolutions over frames, then attention.

    Args:
        channels: Channels of the maps.
        heads: Heads of the attention.
        groups: Groups of the normalisations.
        convolution: Whether there are convolutions.

    Reference:
        Blattmann et al. 2023, arXiv:2304.08818, fig. 4. Where positions of frames enter is ours.
    """

    def __init__(self, channels: int, heads: int, *, groups: int, convolution: bool) -> None:
        super().__init__()
        self.conv = MixedConv(channels, groups) if convolution else None
        self.attention = MixedAttention(channels, heads, groups)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Map `(B * F, channels, H, W)` to the same shape."""
        if self.conv is not None:
            x = self.conv(x, num_frames)
        return self.attention(x, num_frames)
