"""The image encoder of Stable Video Diffusion: a vision transformer, one feature per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mvsdk._json import describe
from mvsdk_export.layers.activations import ACTIVATIONS
from mvsdk_export.layers.clip import ClipLayer

MAX_IMAGE_SIZE = 1024
"""Largest side of an image: matrices that resize to it are made when a graph is."""
MAX_PATCHES = 64
"""Most patches along a side: attention is between all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipVisionConfig:
    """Shape of a `ClipVisionEncoder`; the defaults are the public model (ViT-H/14)."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"D": "projection_dim"}

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    image_size: int = 224
    """Pixels along each side."""
    patch_size: int = 14
    """Pixels of a patch along each side."""
    projection_dim: int = 1024
    hidden_act: str = "gelu"
    """Activation of the feed-forward layers, of `ACTIVATIONS`."""


class ClipVisionEncoder(nn.Module):
    """Map an image to the feature that names what is in it.

    Args:
        config: Shape of the network.

    Raises:
        ValueError: If the activation is unknown, the heads do not divide the width, or patches the
            image, or the image has too many pixels or patches.

    Reference:
        Radford et al. 2021, arXiv:2103.00020; Dosovitskiy et al. 2020, arXiv:2010.11929.
    """

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.vision_model = _VisionModel(config)
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images `(B, 3, S, S)` float32, normalised, to features `(B, projection_dim)`."""
        return self.visual_projection(self.vision_model(pixels))


class _VisionModel(nn.Module):
    """Transformer over the patches and a class token, whose output it returns."""

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size)  # spelt so in every public file
        self.encoder = nn.ModuleDict(
            {
                "layers": nn.ModuleList(
                    ClipLayer(
                        config.hidden_size,
                        config.intermediate_size,
                        config.num_attention_heads,
                        config.hidden_act,
                    )
                    for _ in range(config.num_hidden_layers)
                )
            }
        )
        self.post_layernorm = nn.LayerNorm(config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.pre_layrnorm(self.embeddings(pixels))
        for layer in self.encoder["layers"].children():
            x = layer(x)
        return self.post_layernorm(x[:, 0])


class _Embeddings(nn.Module):
    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(size) * size**-0.5)
        self.patch_embedding = nn.Conv2d(3, size, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2 + 1, size)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # (B, patches, size)
        first = self.class_embedding.expand(pixels.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


def _check(config: ClipVisionConfig) -> None:
    if config.hidden_act not in ACTIVATIONS:
        msg = f"hidden_act is {describe(config.hidden_act)}; known: {', '.join(ACTIVATIONS)}"
        raise ValueError(msg)
    for name, value, divisor_name, divisor in (
        ("hidden_size", config.hidden_size, "num_attention_heads", config.num_attention_heads),
        ("image_size", config.image_size, "patch_size", config.patch_size),
    ):
        if value % divisor:
            msg = f"{name} is {value}; {divisor_name} ({divisor}) divides it"
            raise ValueError(msg)
    size, patch = config.image_size, config.patch_size
    if size > MAX_IMAGE_SIZE:
        msg = f"image_size is {size}; it is at most {MAX_IMAGE_SIZE}"
        raise ValueError(msg)
    if size // patch > MAX_PATCHES:
        msg = f"patch_size is {patch}; at most {MAX_PATCHES} patches lie along a side of {size}"
        raise ValueError(msg)
