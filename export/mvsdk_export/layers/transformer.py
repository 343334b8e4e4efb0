"""Transformer layers of latent diffusion models, with their public state-dict keys.

Tokens are `(B * F, P, C)`, P positions of a frame, the frames of a clip adjacent.

Reference:
    Rombach et al. 2022, arXiv:2112.10752; `BasicTransformerBlock` of diffusers.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mvsdk_export.layers.activations import GEGLU_FUNCTIONS
from mvsdk_export.layers.blocks import GroupNorm, Projection
from mvsdk_export.layers.frame_attention import FRAME_ATTENTION_FUNCTIONS
from mvsdk_export.layers.implementations import LINEAR_FUNCTIONS
from mvsdk_export.layers.parts import POSITION_FUNCTIONS
from mvsdk_export.layers.selection import Implementations
from mvsdk_export.layers.token_attention import TOKEN_ATTENTION_FUNCTIONS, token_attention_on


class TokenProjection(Projection):
    """Linear layer over the tokens of every frame."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "map", "float": "matmul"}


class SelfAttention(nn.Module):
    """Attention between the tokens of one frame.

    Args:
        width: Channels of a token.
        heads: Heads.
        inner: Channels of a head; `width // heads` unless the layer has funnels.
        bias: True if queries, keys and values have a bias.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = token_attention_on("bounded")

    def __init__(
        self, width: int, heads: int, *, inner: int | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        inner_width = heads * (width // heads if inner is None else inner)
        self.to_q = TokenProjection(width, inner_width, bias=bias)
        self.to_k = TokenProjection(width, inner_width, bias=bias)
        self.to_v = TokenProjection(width, inner_width, bias=bias)
        self.to_out = nn.ModuleList([TokenProjection(inner_width, width)])
        self.implementation = "fused"

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Map tokens `(B * F, P, width)` to the same shape, F = `num_frames`."""
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        return self.to_out[0](self._attend(q, k, v, num_frames))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, num_frames: int) -> Tensor:
        return TOKEN_ATTENTION_FUNCTIONS[self.implementation](q, k, v, self.heads, self.scale)


class FrameAttention(SelfAttention):
    """The same between the tokens that one position has in all frames."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "unrolled"}

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, num_frames: int) -> Tensor:
        return FRAME_ATTENTION_FUNCTIONS[self.implementation](
            q, k, v, num_frames, self.heads, self.scale
        )


class MapAttention(SelfAttention):
    """Attention between the positions of one frame, one head, with norm and residual connection."""

    def __init__(self, channels: int, groups: int, eps: float) -> None:
        super().__init__(channels, 1, bias=True)
        self.group_norm = GroupNorm(groups, channels, eps)

    def forward(self, x: Tensor, num_frames: int = 1) -> Tensor:
        """Map `(N, C, H, W)` to the same shape."""
        n, channels, h, w = x.shape
        tokens = self.group_norm(x).permute(0, 2, 3, 1).reshape(n, h * w, channels)
        out = super().forward(tokens, num_frames)
        return x + out.reshape(n, h, w, channels).permute(0, 3, 1, 2)


class TokenCrossAttention(nn.Module):
    """Attention from every token of a clip to the tokens of its text, or to features of its image.

    All frames of a clip lie in the rows of one product: nothing is repeated for them.

    Args:
        width: Channels of a token.
        context_width: Channels of what is attended to.
        heads: Heads.
        context_projection: Class of the layers over what is attended to. A single feature takes a
            plain one: it has no map.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = token_attention_on("batched")

    def __init__(
        self,
        width: int,
        context_width: int,
        heads: int,
        *,
        context_projection: type[nn.Linear] = TokenProjection,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.to_q = TokenProjection(width, width, bias=False)
        self.to_k = context_projection(context_width, width, bias=False)
        self.to_v = context_projection(context_width, width, bias=False)
        self.to_out = nn.ModuleList([TokenProjection(width, width)])
        self.implementation = "fused"

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from `(B * F, P, width)` to `(B, L, context_width)`; the shape of `x` is kept."""
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        q = q.reshape(context.shape[0], -1, q.shape[2])  # all frames of a clip in its rows
        out = TOKEN_ATTENTION_FUNCTIONS[self.implementation](q, k, v, self.heads, self.scale)
        return self.to_out[0](out.reshape(x.shape))


class GatedUnit(nn.Module):
    """Linear layer whose one half, behind a GELU, gates the other.

    Reference:
        Shazeer 2020, arXiv:2002.05202 (GEGLU).
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "two_products"}

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = TokenProjection(width, 2 * inner)
        self.implementation = "one_product"

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, P, width)` to `(N, P, inner)`."""
        linear = LINEAR_FUNCTIONS[self.proj.implementation]
        return GEGLU_FUNCTIONS[self.implementation](x, self.proj.weight, self.proj.bias, linear)


class FeedForward(nn.Module):
    """A gated unit four times as wide, and a linear layer back.

    The empty place between them is that of a dropout, and keeps the public state-dict keys. The NPU
    form takes some positions of all frames after the other, where the map between the layers has no
    room on the chip.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "positions", "float": "whole"}

    def __init__(self, width: int) -> None:
        super().__init__()
        self.implementation = "whole"
        self.widest = 4 * width
        self.net = nn.Sequential(
            GatedUnit(width, 4 * width), nn.Identity(), TokenProjection(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, P, width)` to the same shape."""
        return POSITION_FUNCTIONS[self.implementation](x, self.net, self.widest)
