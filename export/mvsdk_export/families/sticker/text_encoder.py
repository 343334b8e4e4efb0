"""A small text transformer: token ids in, one feature vector per token out, and what they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.layers.blocks import Projection
from mvsdk_export.layers.selection import Implementations
from mvsdk_export.layers.token_attention import TOKEN_ATTENTION_FUNCTIONS, token_attention_on


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """Shape of a `TextEncoder`."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {
        "L": "max_length",
        "D": "hidden_size",
        "T": "memory_tokens",
    }

    vocabulary_size: int
    max_length: int = 16
    hidden_size: int = 192
    layers: int = 3
    heads: int = 6
    subjects: int = 0
    """Entries of the memory; 0 for none."""
    memory_slots: int = 2
    """Subjects that one prompt may name."""
    memory_tokens: int = 49
    """Tokens that the memory keeps of each subject: codes of its picture, and notes."""


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
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.hidden_size)
        self.memory = SubjectMemory(config) if config.subjects else None
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map int32 ids `(B, L)` to features `(B, S, hidden_size)`.

        S is L, or L + memory_slots * memory_tokens with a memory: what it holds of the named
        subjects follows the features of the words.
        """
        features = self.encode(input_ids)
        if self.memory is None:
            return features
        return torch.cat([features, self.memory(self.memory.find(features))], dim=1)

    def encode(self, input_ids: Tensor) -> Tensor:
        """Map int32 ids `(B, L)` to features of the words `(B, L, hidden_size)`."""
        x = self.token_embedding(input_ids) + self.position_embedding
        for layer in self.layers:
            x = layer(x)
        return self.final_norm(x)


class SubjectMemory(nn.Module):
    """A table of what the subjects look like, read by the words of a prompt.

    Slots attend to the words, name a subject each (or none, the last entry), and get the tokens
    that the table keeps of it: a square grid of codes, one per cell of its picture. A network that
    had to keep a thousand subjects in its convolutions would meet each of them too rarely to learn
    it; so the table keeps the looks, and the network learns only what to do with them.

    Reference:
        Sukhbaatar et al. 2015, arXiv:1503.08895; Lample et al. 2019, arXiv:1907.05242 (memory
        layers).
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        size, tokens = config.hidden_size, config.memory_tokens
        self.tokens = tokens
        self.queries = nn.Parameter(torch.randn(1, config.memory_slots, size) * size**-0.5)
        self.to_k = nn.Linear(size, size)
        self.to_v = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size)
        self.classify = nn.Linear(size, config.subjects + 1)
        self.table = Projection(config.subjects + 1, tokens * size, bias=False)

    def find(self, features: Tensor) -> Tensor:
        """Map features of words `(B, L, D)` to logits `(B, slots, subjects + 1)`."""
        k, v = self.to_k(features), self.to_v(features)
        probabilities = (self.queries @ k.transpose(1, 2) * k.shape[2] ** -0.5).softmax(dim=-1)
        return self.classify(self.norm(probabilities @ v))

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits to what the table holds, `(B, slots * tokens, D)`."""
        found = self.table(logits.softmax(dim=-1))
        b, slots, size = found.shape
        return found.reshape(b, slots * self.tokens, size // self.tokens)


class Layer(nn.Module):
    """Attention between the tokens, then a feed-forward network."""

    IMPLEMENTATIONS: ClassVar[Implementations] = token_attention_on("scaled_logits")

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.heads
        self.scale = (size // config.heads) ** -0.5
        self.implementation = "scaled_logits"
        self.norm1 = nn.LayerNorm(size)
        self.to_q = nn.Linear(size, size)
        self.to_k = nn.Linear(size, size)
        self.to_v = nn.Linear(size, size)
        self.to_out = nn.Linear(size, size)
        self.norm2 = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, 4 * size)
        self.fc2 = nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, L, hidden_size)` to the same shape."""
        h = self.norm1(x)
        q, k, v = self.to_q(h), self.to_k(h), self.to_v(h)
        x = x + self.to_out(
            TOKEN_ATTENTION_FUNCTIONS[self.implementation](q, k, v, self.heads, self.scale)
        )
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
