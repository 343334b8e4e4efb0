"""The autoencoder of Stable Video Diffusion, whose decoder mixes the frames of a clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mvsdk_export.families.stable_diffusion.vae import ImageEncoder
from mvsdk_export.families.svd.blocks import SpatioTemporalResBlock, TimeMixer
from mvsdk_export.layers.blocks import GroupNorm, PointwiseConv, SiLU
from mvsdk_export.layers.resnet import (
    FrameConv,
    Upsample,
    frames_to_rows,
    rows_to_frames,
)
from mvsdk_export.layers.transformer import MapAttention

LEVELS = 4
"""Resolutions: each but the first halves height and width."""

SCALE = 2 ** (LEVELS - 1)
"""Pixels of a latent position along each side."""

EPS = 1e-6
"""Added to the variance of every normalisation but those over frames."""

TEMPORAL_EPS = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalAutoencoderConfig:
    """Shape of a `TemporalAutoencoder`; the defaults are the public model."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "latent_channels"}

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    scaling_factor: float = 0.18215
    """The denoiser sees latents times this, about unit variance; those of the first frame as they
    are."""
    num_frames: int = 14
    norm_groups: int = 32


class ClipStage(nn.Module):
    """The same of the decoder, whose residual blocks mix the frames of a clip."""

    def __init__(
        self,
        config: TemporalAutoencoderConfig,
        in_channels: int,
        channels: int,
        *,
        layers: int,
        attention: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * (layers - 1)]
        self.resnets = nn.ModuleList(
            SpatioTemporalResBlock(
                width,
                channels,
                embedding_dim=None,
                groups=config.norm_groups,
                eps=EPS,
                temporal_eps=TEMPORAL_EPS,
                mixer=TimeMixer(0.0, of_spatial=False),
            )
            for width in widths
        )
        if attention:
            self.attentions = nn.ModuleList([MapAttention(channels, config.norm_groups, EPS)])
        if upsample:
            self.upsamplers = nn.ModuleList([Upsample(channels)])
        self.has_attention, self.has_upsampler = attention, upsample

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Map `(B * F, in_channels, H, W)` to `(B * F, channels, H', W')`."""
        for index, resnet in enumerate(self.resnets):
            if self.has_attention and index == 1:
                x = self.attentions[0](x)
            x = resnet(x, num_frames)
        return self.upsamplers[0](x) if self.has_upsampler else x


class ClipDecoder(nn.Module):
    """Map the latents of clips to frames."""

    def __init__(self, config: TemporalAutoencoderConfig) -> None:
        super().__init__()
        widths, layers = config.block_out_channels[::-1], config.layers_per_block
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = ClipStage(config, widths[0], widths[0], layers=layers, attention=True)
        self.up_blocks = nn.ModuleList(
            ClipStage(
                config,
                widths[max(level - 1, 0)],
                width,
                layers=layers + 1,
                upsample=level < LEVELS - 1,
            )
            for level, width in enumerate(widths)
        )
        self.activation = SiLU()
        self.conv_norm_out = GroupNorm(config.norm_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)
        self.time_conv_out = FrameConv(config.out_channels, config.out_channels)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Map `(B * F, latent_channels, h, w)` to rows of pixels `(B, 3, F, 8h * 8w)`."""
        x = self.mid_block(self.conv_in(x), num_frames)
        for stage in self.up_blocks:
            x = stage(x, num_frames)
        x = self.conv_out(self.activation(self.conv_norm_out(x)))
        return self.time_conv_out(frames_to_rows(x, num_frames))


class TemporalAutoencoder(nn.Module):
    """Encoder of images and decoder of clips.

    Args:
        config: Shape of both.

    Reference:
        Blattmann et al. 2023, arXiv:2304.08818, sec. 3.1.1 (temporal layers in the decoder only);
        Rombach et al. 2022, arXiv:2112.10752 (the autoencoder they were added to).
    """

    def __init__(self, config: TemporalAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config)
        self.decoder = ClipDecoder(config)
        self.quant_conv = PointwiseConv(2 * config.latent_channels, 2 * config.latent_channels)

    def encode(self, frames: Tensor) -> Tensor:
        """Map images to the most likely latents, one by one.

        Args:
            frames: `(N, 3, H, W)` float32 in [-1, 1]; H and W divisible by 8.

        Returns:
            `(N, latent_channels, H / 8, W / 8)` float32, not multiplied by the scaling factor.
        """
        return self.quant_conv(self.encoder(frames))[:, : self.config.latent_channels]

    def decode(self, latents: Tensor, num_frames: int | None = None) -> Tensor:
        """Map the latents of clips to frames.

        Args:
            latents: `(B * F, latent_channels, h, w)` float32, without the scaling factor.
            num_frames: F, the frames of a clip that are decoded together; None: all are one clip.

        Returns:
            `(B * F, 3, 8h, 8w)` float32, about [-1, 1].
        """
        n, _, h, w = latents.shape
        rows = self.decoder(latents, n if num_frames is None else num_frames)
        return rows_to_frames(rows, torch.Size((n, rows.shape[1], SCALE * h, SCALE * w)))

    def decode_colours_last(self, latents: Tensor) -> Tensor:
        """Map the latents of one clip to frames as pictures have them, red, green and blue last.

        That transpose cancels the one behind the last convolution, whose layout on the HTP it is.
        Behind the frames of `decode` one is left over, which the compiler does not take on bytes.

        Args:
            latents: `(F, latent_channels, h, w)` float32, without the scaling factor.

        Returns:
            `(F, 8h, 8w, 3)` float32, about [-1, 1].
        """
        n, _, h, w = latents.shape
        rows = self.decoder(latents, n).permute(0, 2, 3, 1)  # (1, F, P, 3)
        return rows.reshape(n, SCALE * h, SCALE * w, -1)
