"""A small text transformer: token ids in, one feature vector per token out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """Shape of a `TextEncoder`."""

    vocabulary_size: int
    max_length: int = 16
    hidden_size: int = 192
    layers: int = 3
    heads: int = 6


class TextEncoder(nn.Module):
    """Pre-norm transformer encoder without a padding mask.

    Padding is an ordinary token that the network learns to ignore, as in CLIP: one graph input
    less, and no additive mask of -1e4 that would eat the range of a 16-bit activation.

    Reference:
        Xiong et al. 2020, arXiv:2002.04745 (pre-norm).
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.position_embedding = nn.Parameter(
            torch.randn(1, config.max_length, config.hidden_size) * 0.02
        )
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.hidden_size)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map int32 ids `(B, L)` to features `(B, L, hidden_size)`."""
        x = self.token_embedding(input_ids) + self.position_embedding
        for layer in self.layers:
            x = layer(x)
        return self.final_norm(x)


class _Layer(nn.Module):
    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(size)
        self.to_q = nn.Linear(size, size)
        self.to_k = nn.Linear(size, size)
        self.to_v = nn.Linear(size, size)
        self.to_out = nn.Linear(size, size)
        self.norm2 = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, 4 * size)
        self.fc2 = nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (self._split(to(h)) for to in (self.to_q, self.to_k, self.to_v))
        probabilities = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(dim=-1)
        x = x + self.to_out((probabilities @ v).permute(0, 2, 1, 3).reshape(x.shape))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def _split(self, x: Tensor) -> Tensor:
        b, length, size = x.shape
        return x.reshape(b, length, self.heads, size // self.heads).permute(0, 2, 1, 3)
