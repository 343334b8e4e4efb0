"""A light decoder for the latents of Stable Diffusion: frame by frame, convolutions alone.

The public `AutoencoderTiny`, known as TAESD, learned to decode as the large decoder does. It knows
no time: what flickers in the latents flickers in the clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_RANGE = 3.0
"""Latents are bent to lie within plus and minus this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LightDecoderConfig:
    """Shape of a `LightDecoder`; the defaults are the public model."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "latent_channels"}

    latent_channels: int = 4
    decoder_block_out_channels: tuple[int, int, int, int] = (64, 64, 64, 64)
    """Of the four levels; all the same, as no layer of the public network changes the number."""
    num_decoder_blocks: tuple[int, int, int, int] = (3, 3, 3, 1)
    """Residual blocks of each level; height and width double from one to the next."""

    @property
    def scale(self) -> int:
        """Pixels of a latent position along each side."""
        return 1 << (len(self.num_decoder_blocks) - 1)


class LightBlock(nn.Module):
    """Three 3x3 convolutions with a residual connection; nothing is normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, C, H, W)` to the same shape."""
        return F.relu(self.conv(x) + x)


class LightLayers(nn.Module):
    """The layers in their order, numbered as in public checkpoints."""

    def __init__(self, config: LightDecoderConfig) -> None:
        super().__init__()
        channels, *others = config.decoder_block_out_channels
        if any(width != channels for width in others):
            msg = f"decoder_block_out_channels is {config.decoder_block_out_channels}; all are one"
            raise ValueError(msg)
        layers: list[nn.Module] = [
            nn.Conv2d(config.latent_channels, channels, 3, padding=1),
            nn.ReLU(),
        ]
        for level, blocks in enumerate(config.num_decoder_blocks):
            if level:
                layers.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
                layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            layers += [LightBlock(channels) for _ in range(blocks)]
        layers.append(nn.Conv2d(channels, 3, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, latent_channels, h, w)` to `(N, 3, 8h, 8w)`."""
        return self.layers(x)


class LightDecoder(nn.Module):
    """Decoder of single frames.

    Args:
        config: Its shape.

    Reference:
        Ollin Boer Bohan, TAESD, https://github.com/madebyollin/taesd; diffusers' `AutoencoderTiny`.
    """

    def __init__(self, config: LightDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = LightLayers(config)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents, one by one.

        Args:
            latents: `(F, latent_channels, h, w)` float32, as the denoiser sees them: multiplied by
                the scaling factor of the large autoencoder.

        Returns:
            `(F, 3, 8h, 8w)` float32, about [0, 1].
        """
        return self.decoder(torch.tanh(latents * (1 / LATENT_RANGE)) * LATENT_RANGE)


class LightDecoderGraph(nn.Module):
    """Map the latents of frames to frames, as phones get it."""

    def __init__(self, decoder: LightDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Map scaled latents `(F, C, h, w)` to frames `(F, 8h, 8w, 3)` float32 in [0, 1]."""
        return torch.clamp(self.decoder(latents), 0.0, 1.0).permute(0, 2, 3, 1)
