"""Transformers of Stable Video Diffusion: attention in a frame, between frames, to the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvsdk_export.families.svd.blocks import TimeMixer
from mvsdk_export.layers.blocks import GroupNorm
from mvsdk_export.layers.embeddings import Mlp, sinusoids
from mvsdk_export.layers.resnet import per_frame
from mvsdk_export.layers.transformer import (
    FeedForward,
    FrameAttention,
    SelfAttention,
    TokenCrossAttention,
    TokenProjection,
)


class SingleTokenCrossAttention(TokenCrossAttention):
    """Attention from every token of a clip to the features of its image.

    Stable Video Diffusion has one such feature, and softmax over one key is 1 whatever the query:
    `FoldedCrossAttention` is what is left of the layer then. This one takes any number.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__(width, context_width, heads, context_projection=nn.Linear)


class FoldedCrossAttention(nn.Module):
    """What cross-attention to a single feature is: one vector per clip, added to every token.

    Reference:
        Ben Yahia et al. 2024, arXiv:2412.07583 (optimised cross-attention).
    """

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.to_out = nn.ModuleList([nn.Linear(context_width, width)])

    def forward(self, context: Tensor) -> Tensor:
        """Map `(B, 1, context_width)` to `(B, 1, width)`.

        Raises:
            ValueError: If a clip has more than one feature.
        """
        if context.shape[1] != 1:
            msg = f"a folded cross-attention takes 1 feature per clip, got {context.shape[1]}"
            raise ValueError(msg)
        return self.to_out[0](context)


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward layer, each behind a normalisation.

    Args:
        width: Channels of a token.
        context_width: Channels of the image feature.
        heads: Heads of both attentions.
        attention: `SelfAttention` for tokens of a frame, `FrameAttention` for those of a position.
        inner: Channels of a head of the self-attention, None without funnels.
        folded: True for a folded cross-attention.
    """

    def __init__(
        self,
        width: int,
        context_width: int,
        heads: int,
        *,
        attention: type[SelfAttention] = SelfAttention,
        inner: int | None,
        folded: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = attention(width, heads, inner=inner)
        self.norm2 = None if folded else nn.LayerNorm(width)
        self.attn2: FoldedCrossAttention | SingleTokenCrossAttention = (
            FoldedCrossAttention(width, context_width)
            if folded
            else SingleTokenCrossAttention(width, context_width, heads)
        )
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """Map tokens `(B * F, P, width)` to the same shape; `context` is `(B, L, D)`."""
        x = x + self.attn1(self.norm1(x), num_frames)
        if isinstance(self.attn2, FoldedCrossAttention):
            x = x + per_frame(self.attn2(context), num_frames)
        elif self.norm2 is not None:
            x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class TemporalTransformerLayer(TransformerLayer):
    """The same between frames, with a feed-forward layer before it."""

    def __init__(
        self, width: int, context_width: int, heads: int, *, inner: int | None, folded: bool
    ) -> None:
        super().__init__(
            width, context_width, heads, attention=FrameAttention, inner=inner, folded=folded
        )
        self.norm_in = nn.LayerNorm(width)
        self.ff_in = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """Map tokens `(B * F, P, width)` to the same shape; `context` is `(B, L, D)`."""
        return super().forward(x + self.ff_in(self.norm_in(x)), context, num_frames)


class TransformerSpatioTemporal(nn.Module):
    """Transformer layers within the frames, each followed by one between them that is mixed in.

    Args:
        channels: Channels of the maps, and of a token.
        context_width: Channels of the image feature.
        heads: Heads of every attention.
        layers: Pairs of layers.
        groups: Groups of the normalisation.
        inner: Channels of a head of the spatial self-attentions, None without funnels.
        temporal_inner: The same for the temporal ones.
        folded: True for folded cross-attentions.
    """

    def __init__(
        self,
        channels: int,
        context_width: int,
        heads: int,
        *,
        layers: int,
        groups: int,
        inner: int | None,
        temporal_inner: int | None,
        folded: bool,
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, 1e-6)
        self.proj_in = TokenProjection(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TransformerLayer(channels, context_width, heads, inner=inner, folded=folded)
            for _ in range(layers)
        )
        self.temporal_transformer_blocks: nn.ModuleList | None = nn.ModuleList(
            TemporalTransformerLayer(
                channels, context_width, heads, inner=temporal_inner, folded=folded
            )
            for _ in range(layers)
        )
        self.time_pos_embed: Mlp | None = Mlp(channels, 4 * channels, channels)
        self.time_mixer: TimeMixer | None = TimeMixer(0.5, of_spatial=True)
        self.proj_out = TokenProjection(channels, channels)
        self.gate: Tensor | None = None

    @property
    def is_pruned(self) -> bool:
        """True if the temporal layers are gone."""
        return self.temporal_transformer_blocks is None

    def prune_(self) -> None:
        """Remove the temporal layers: what is left is the transformer of an image network."""
        self.temporal_transformer_blocks = self.time_pos_embed = self.time_mixer = self.gate = None

    def forward(self, x: Tensor, context: Tensor, num_frames: int) -> Tensor:
        """Map `(B * F, channels, H, W)` to the same shape; `context` is `(B, L, D)`."""
        n, channels, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, channels)
        tokens = self.proj_in(tokens)
        if (
            self.temporal_transformer_blocks is None
            or self.time_pos_embed is None
            or self.time_mixer is None
        ):
            for layer in self.transformer_blocks:
                tokens = layer(tokens, context, num_frames)
        else:
            places, share = self._places(x, num_frames), self.time_mixer(self.gate)
            for layer, temporal in zip(
                self.transformer_blocks, self.temporal_transformer_blocks, strict=True
            ):
                tokens = layer(tokens, context, num_frames)
                mixed = temporal(tokens + places, context, num_frames)
                tokens = tokens + share * (mixed - tokens)
        out = self.proj_out(tokens).reshape(n, h, w, channels).permute(0, 3, 1, 2)
        return out + x

    def _places(self, x: Tensor, num_frames: int) -> Tensor:
        """Return the embedding of every frame's place in its clip, `(B * F, 1, channels)`."""
        assert self.time_pos_embed is not None
        clock = torch.arange(num_frames, dtype=torch.float32, device=x.device)
        places = self.time_pos_embed(sinusoids(clock, x.shape[1]).to(x.dtype))
        return places.repeat(x.shape[0] // num_frames, 1)[:, None]
