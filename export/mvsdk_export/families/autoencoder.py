"""A small image autoencoder whose decoder is cheap on an NPU.

Frames are coded one by one (they ride in the batch axis). The decoder exchanges channels for
resolution at the pixel end (depth-to-space by 2), so no convolution runs at full resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.layers.blocks import GroupNorm, PointwiseConv, ResidualBlock, SiLU, zero_

PATCH = 8
"""Pixels per latent position, along both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderConfig:
    """Shape of an `Autoencoder`; the spatial factor is 8."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "latent_channels"}

    latent_channels: int = 32
    decoder_channels: tuple[int, int, int] = (128, 64, 32)
    decoder_layers: int = 2


class Encoder(nn.Module):
    """Linear patch transform: `(N, 3, H, W)` in [-1, 1] to latents `(N, C, H / 8, W / 8)`.

    The best linear transform of a patch has a closed form (principal components), so the latent
    space is fixed before anything is trained: decoder and denoiser can be trained side by side.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, config.latent_channels, PATCH, stride=PATCH)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode frames to latents of zero mean and about unit variance."""
        return self.projection(frames)


class Decoder(nn.Module):
    """Map latents `(N, C, h, w)` to frames `(N, 3, 8h, 8w)`, about [-1, 1].

    The inverse of the patch transform, plus what a convolutional network adds to it.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.decoder_channels
        self.projection = PointwiseConv(config.latent_channels, 3 * PATCH * PATCH)
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList()
        self.upsamplers = nn.ModuleList()
        for level, width in enumerate(widths):
            blocks = [ResidualBlock(width, width, groups=8) for _ in range(config.decoder_layers)]
            self.stages.append(nn.Sequential(*blocks))
            if level + 1 < len(widths):
                self.upsamplers.append(PointwiseConv(width, 4 * widths[level + 1]))
        self.activation = SiLU()
        self.norm_out = GroupNorm(8, widths[-1])
        self.conv_out = zero_(nn.Conv2d(widths[-1], 12, 3, padding=1))

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents."""
        x = self.conv_in(latents)
        for level, stage in enumerate(self.stages):
            x = stage(x)
            if level < len(self.upsamplers):
                x = F.pixel_shuffle(self.upsamplers[level](x), 2)
        detail = F.pixel_shuffle(self.conv_out(self.activation(self.norm_out(x))), 2)
        return F.pixel_shuffle(self.projection(latents), PATCH) + detail


class Autoencoder(nn.Module):
    """Encoder and decoder of frames."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, frames: Tensor) -> Tensor:
        """Map frames `(N, 3, H, W)` in [-1, 1] to latents `(N, C, H / 8, W / 8)`."""
        return self.encoder(frames)

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents `(N, C, h, w)` to frames `(N, 3, 8h, 8w)`, about [-1, 1]."""
        return self.decoder(latents)


class FrameDecoder(nn.Module):
    """The decoder as phones get it: latents in, RGB bytes out.

    Clamping and the channel order are part of the graph. Rounding to bytes is left to
    the lowering (`QuantizeLinear` with scale 1/255), which every target has as one operator.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        """Map `(F, C, h, w)` to `(F, 8h, 8w, 3)` float32 in [0, 1]."""
        frames = self.autoencoder.decode(latents) * 0.5 + 0.5
        return torch.clamp(frames, 0.0, 1.0).permute(0, 2, 3, 1)
