"""Layers of CLIP's transformers, of pictures and of texts, with their public state-dict keys.

Reference:
    Radford et al. 2021, arXiv:2103.00020; `CLIPEncoderLayer` of transformers.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mvsdk_export.layers.activations import ACTIVATIONS
from mvsdk_export.layers.selection import Implementations
from mvsdk_export.layers.token_attention import (
    CAUSAL_ATTENTION_FUNCTIONS,
    TOKEN_ATTENTION_FUNCTIONS,
    token_attention_on,
)
from mvsdk_export.layers.transformer import TokenProjection


class ClipAttention(nn.Module):
    """Attention between all tokens of an image."""

    IMPLEMENTATIONS: ClassVar[Implementations] = token_attention_on("batched")

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.q_proj = TokenProjection(width, width)
        self.k_proj = TokenProjection(width, width)
        self.v_proj = TokenProjection(width, width)
        self.out_proj = TokenProjection(width, width)
        self.implementation = "fused"

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, L, width)` to the same shape."""
        return self.out_proj(self._attend(self.q_proj(x), self.k_proj(x), self.v_proj(x)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return TOKEN_ATTENTION_FUNCTIONS[self.implementation](q, k, v, self.heads, self.scale)


class CausalClipAttention(ClipAttention):
    """Attention from each token of a text to itself and those before it."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "bounded_mask", "float": "masked"}

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return CAUSAL_ATTENTION_FUNCTIONS[self.implementation](q, k, v, self.heads, self.scale)


class ClipFeedForward(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        width: Channels of a token.
        inner: Channels between the layers.
        activation: Of `ACTIVATIONS`.
    """

    def __init__(self, width: int, inner: int, activation: str) -> None:
        super().__init__()
        self.fc1 = TokenProjection(width, inner)
        self.activation = ACTIVATIONS[activation]()
        self.fc2 = TokenProjection(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, L, width)` to the same shape."""
        return self.fc2(self.activation(self.fc1(x)))


class ClipLayer(nn.Module):
    """Attention and a feed-forward layer, each behind a normalisation.

    Args:
        width: Channels of a token.
        inner: Channels inside of the feed-forward layer.
        heads: Heads of the attention.
        activation: Of `ACTIVATIONS`.
        attention: `ClipAttention` for pictures, `CausalClipAttention` for texts.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        heads: int,
        activation: str,
        *,
        attention: type[ClipAttention] = ClipAttention,
    ) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width)
        self.self_attn = attention(width, heads)
        self.layer_norm2 = nn.LayerNorm(width)
        self.mlp = ClipFeedForward(width, inner, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, L, width)` to the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))
