"""Blocks shared by every network of the toolchain, as NPU compilers like them best.

Frames ride in the batch axis: a clip is `(B * F, C, H, W)` with the frames of one clip adjacent.
No tensor has a rank above four, except inside the implementations that docs/npu_forms.md measures.

A layer can often be computed in several ways that are equal in exact arithmetic and very unequal on
an NPU: its implementations (implementations.py). Training uses the one that is fast on CPUs and
GPUs; `select_implementations_` switches a network, before it is lowered, to those that each class
names for an engine (selection.py). docs/npu_forms.md, where those of the HTP were found, does not
compare 1x1 convolutions with matrix products: they stay convolutions, whose int8 weights get a
scale per channel.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mvsdk_export.layers.implementations import (
    CROSS_ATTENTION_FUNCTIONS,
    GROUP_NORM_FUNCTIONS,
    LINEAR_FUNCTIONS,
    POINTWISE_FUNCTIONS,
    SILU_FUNCTIONS,
    SPATIAL_ATTENTION_FUNCTIONS,
    TEMPORAL_ATTENTION_FUNCTIONS,
    TEMPORAL_CONV_FUNCTIONS,
)
from mvsdk_export.layers.selection import Implementations

HEAD_DIM = 32
"""Channels per attention head: one HVX vector of 16-bit activations holds two heads."""


class SiLU(nn.Module):
    """Sigmoid-weighted linear unit, `x * sigmoid(x)`.

    Written so, Qualcomm's HTP compiler (QNN 2.51) fuses it at w8a16 into a kernel whose results
    are wrong behind a normalisation (0 dB, sometimes a crash of the emulator). The equal
    `x * (tanh(x / 2) / 2 + 1 / 2)` is compiled to what it says: 80 dB (docs/npu_forms.md).

    Reference:
        Elfwing et al. 2017, arXiv:1702.03118.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {
        "htp": "tanh",
        "htp_fp16": "halves",
        "float": "sigmoid",
    }

    def __init__(self, implementation: str = "sigmoid") -> None:
        super().__init__()
        self.implementation = implementation

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return SILU_FUNCTIONS[self.implementation](x)


class GroupNorm(nn.GroupNorm):
    """Group normalisation, on NPUs a layer normalisation over each group.

    Exported as it is, the layer becomes an InstanceNormalization over a few very long channels,
    coarser at w8a16 and in places far slower than the equal LayerNormalization (docs/npu_forms.md).

    Reference:
        Wu and He 2018, arXiv:1803.08494.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {
        "htp": "layer_norm",
        "coreai": "native",
        "xnnpack": "moments",  # it has no normalisation: means and products make one of groups
    }

    def __init__(
        self, groups: int, channels: int, eps: float = 1e-5, *, implementation: str = "native"
    ) -> None:
        super().__init__(groups, channels, eps)
        self.implementation = implementation

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(N, C, H, W)` over the channels of each group and all positions."""
        return GROUP_NORM_FUNCTIONS[self.implementation](
            input, self.num_groups, self.weight, self.bias, self.eps
        )


class PointwiseConv(nn.Conv2d):
    """1x1 convolution."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "conv2d"}

    def __init__(
        self, in_channels: int, out_channels: int, *, implementation: str = "linear"
    ) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.implementation = implementation

    def forward(self, input: Tensor) -> Tensor:
        """Map `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        return POINTWISE_FUNCTIONS[self.implementation](input, self.weight, self.bias)


class Projection(nn.Linear):
    """Linear layer over sequences `(B, N, C)`, with a scale per output once it is quantised."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "conv2d", "float": "matmul"}

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.implementation = "matmul"

    def forward(self, input: Tensor) -> Tensor:
        """Map `(B, N, in_features)` to `(B, N, out_features)`."""
        return LINEAR_FUNCTIONS[self.implementation](input, self.weight, self.bias)


class PreciseProjection(Projection):
    """The same where 8 bits of weights are too few: nothing behind it averages its error out."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {
        "htp": "two_terms",
        "htp_fp16": "conv2d",
        "float": "matmul",
    }


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation, modulated by an embedding (FiLM).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        embedding_dim: Width of the conditioning embedding, None for an unconditioned block.
        groups: Groups of the normalisation.

    Reference:
        He et al. 2016, arXiv:1603.05027 (pre-activation); Perez et al. 2018, arXiv:1709.07871.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_dim: int | None = None,
        groups: int = 16,
    ) -> None:
        super().__init__()
        self.activation = SiLU()
        self.norm1 = GroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(groups, out_channels)
        self.conv2 = zero_(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.conv_shortcut = (
            PointwiseConv(in_channels, out_channels) if in_channels != out_channels else None
        )
        self.time_emb_proj = (
            nn.Linear(embedding_dim, 2 * out_channels) if embedding_dim is not None else None
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map `(N, in_channels, H, W)` and `(N, embedding_dim)` to `(N, out_channels, H, W)`."""
        h = self.conv1(self.activation(self.norm1(x)))
        h = self.norm2(h)
        if self.time_emb_proj is not None:
            scale, shift = self.time_emb_proj(embedding)[:, :, None, None].chunk(2, dim=1)
            h = h * (scale + 1) + shift
        h = self.conv2(self.activation(h))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class FeedForward(nn.Module):
    """Two 1x1 convolutions per position, modulated by an embedding, with a residual."""

    def __init__(
        self, channels: int, *, embedding_dim: int, expansion: int = 2, groups: int = 16
    ) -> None:
        super().__init__()
        self.activation = SiLU()
        self.norm = GroupNorm(groups, channels)
        self.time_emb_proj = nn.Linear(embedding_dim, 2 * channels)
        self.conv1 = PointwiseConv(channels, expansion * channels)
        self.conv2 = zero_(PointwiseConv(expansion * channels, channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map `(N, C, H, W)` and `(N, embedding_dim)` to `(N, C, H, W)`."""
        scale, shift = self.time_emb_proj(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm(x) * (scale + 1) + shift
        return x + self.conv2(self.activation(self.conv1(h)))


class SpatialAttention(nn.Module):
    """Self-attention over the positions of one frame, with a residual connection.

    The probabilities are the *first* operand of the second product: the HTP keeps 16 bits of the
    first operand of a matrix product and 8 of the second, and values survive 8 bits far better
    than probabilities do (docs/npu_forms.md).
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "values_second", "coreai": "heads_split"}

    def __init__(
        self, channels: int, *, groups: int = 16, implementation: str = "values_second"
    ) -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.norm = GroupNorm(groups, channels)
        self.to_qkv = PointwiseConv(channels, 3 * channels)
        self.to_out = zero_(PointwiseConv(channels, channels))
        self.implementation = implementation

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each frame of `(N, C, H, W)`."""
        q, k, v = self.to_qkv(self.norm(x)).chunk(3, dim=1)
        return x + self.to_out(
            SPATIAL_ATTENTION_FUNCTIONS[self.implementation](q, k, v, self.heads)
        )


class CrossAttention(nn.Module):
    """Attention from every position of every frame to the text tokens, with a residual."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "frames_in_rows", "coreai": "heads_split"}

    def __init__(
        self,
        channels: int,
        context_dim: int,
        *,
        groups: int = 16,
        implementation: str = "frames_in_rows",
    ) -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.norm = GroupNorm(groups, channels)
        self.to_q = PointwiseConv(channels, channels)
        self.to_k = nn.Linear(context_dim, channels)
        self.to_v = nn.Linear(context_dim, channels)
        self.to_out = zero_(PointwiseConv(channels, channels))
        self.implementation = implementation

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from `(B * F, C, H, W)` to `(B, L, context_dim)`."""
        q, k, v = self.to_q(self.norm(x)), self.to_k(context), self.to_v(context)
        return x + self.to_out(CROSS_ATTENTION_FUNCTIONS[self.implementation](q, k, v, self.heads))


class TemporalConv(nn.Module):
    """Convolution over three neighbouring frames, position by position, with a residual.

    The weight has the `(C, C, 3, 1, 1)` layout of public video checkpoints, however it is applied.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "conv2d"}

    def __init__(self, channels: int, *, groups: int = 16, implementation: str = "conv2d") -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.activation = SiLU()
        self.weight = nn.Parameter(torch.zeros(channels, channels, 3, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.implementation = implementation

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Mix the frames of `(B * F, C, H, W)`, F = `num_frames`."""
        h = self.activation(self.norm(x))
        return x + TEMPORAL_CONV_FUNCTIONS[self.implementation](
            h, self.weight, self.bias, num_frames
        )


class TemporalAttention(nn.Module):
    """Self-attention over the frames, position by position, with a residual connection."""

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "unrolled"}

    def __init__(self, channels: int, *, groups: int = 16, implementation: str = "batched") -> None:
        super().__init__()
        self.heads = channels // HEAD_DIM
        self.norm = GroupNorm(groups, channels)
        self.to_qkv = PointwiseConv(channels, 3 * channels)
        self.to_out = zero_(PointwiseConv(channels, channels))
        self.implementation = implementation

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Mix the frames of `(B * F, C, H, W)`, F = `num_frames`."""
        q, k, v = self.to_qkv(self.norm(x)).chunk(3, dim=1)
        out = TEMPORAL_ATTENTION_FUNCTIONS[self.implementation](q, k, v, num_frames, self.heads)
        return x + self.to_out(out)


def zero_(layer: nn.Conv2d) -> nn.Conv2d:
    """Zero a layer, so that a fresh residual branch starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def sinusoid(values: Tensor, dim: int, *, max_frequency: float) -> Tensor:
    """Embed scalars by sines and cosines of geometrically spaced frequencies.

    The angle stays small (`max_frequency` times the largest value), since half precision resolves
    an angle of 8 rad to 0.004 rad only and an NPU may evaluate sines in half precision.

    Args:
        values: `(N,)` float32, in [0, 1].
        dim: Even width of the embedding.
        max_frequency: Largest angular frequency, in rad per unit of `values`.

    Returns:
        `(N, dim)` float32.
    """
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=values.device) / (dim // 2 - 1)
    angles = values[:, None] * torch.exp(exponents * math.log(max_frequency))[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
