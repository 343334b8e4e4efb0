"""The text encoder of Stable Diffusion: CLIP's transformer over the tokens of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mvsdk._json import describe
from mvsdk_export.layers.activations import ACTIVATIONS
from mvsdk_export.layers.clip import CausalClipAttention, ClipLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTextConfig:
    """Shape of a `ClipTextEncoder`; the defaults are that of Stable Diffusion 1.5 (ViT-L/14)."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"D": "hidden_size", "L": "max_position_embeddings"}

    vocabulary_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    """Tokens of a prompt."""
    hidden_act: str = "quick_gelu"
    """Activation of the feed-forward layers, of `ACTIVATIONS`."""
    clip_skip: int = 0
    """Last layers that are left out: 1 takes the penultimate layer's output."""


def check_clip_text_config(config: ClipTextConfig) -> None:
    """Check what the types of the fields cannot say.

    Raises:
        ValueError: With the first field that no network can have.
    """
    if config.hidden_act not in ACTIVATIONS:
        msg = f"hidden_act is {describe(config.hidden_act)}; known: {', '.join(ACTIVATIONS)}"
        raise ValueError(msg)
    if config.hidden_size % config.num_attention_heads:
        heads = config.num_attention_heads
        msg = f"hidden_size is {config.hidden_size}; num_attention_heads ({heads}) divides it"
        raise ValueError(msg)
    if not 0 <= config.clip_skip < config.num_hidden_layers:
        most = config.num_hidden_layers - 1
        msg = f"clip_skip is {config.clip_skip}; it is 0 to {most}"
        raise ValueError(msg)


class ClipTextEncoder(nn.Module):
    """Map tokens to what the denoiser attends to.

    Args:
        config: Shape of the network.

    Raises:
        ValueError: If there is no network of this shape.

    Reference:
        Radford et al. 2021, arXiv:2103.00020; `CLIPTextModel` of transformers.
    """

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        check_clip_text_config(config)
        self.config = config
        self.text_model = _TextModel(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map `(1, L)` int32 to `(1, L, hidden_size)` float32."""
        return self.text_model(input_ids)


class _TextModel(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict(
            {
                "layers": nn.ModuleList(
                    ClipLayer(
                        width,
                        config.intermediate_size,
                        config.num_attention_heads,
                        config.hidden_act,
                        attention=CausalClipAttention,
                    )
                    for _ in range(config.num_hidden_layers)
                )
            }
        )
        self.final_layer_norm = nn.LayerNorm(width)
        self.used_layers = config.num_hidden_layers - config.clip_skip

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embeddings(input_ids)
        for layer in list(self.encoder["layers"].children())[: self.used_layers]:
            x = layer(x)
        return self.final_layer_norm(x)


class _Embeddings(nn.Module):
    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.token_embedding(input_ids) + self.position_embedding(places)
