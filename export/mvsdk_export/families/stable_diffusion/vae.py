"""The autoencoder of Stable Diffusion, frame by frame: `AutoencoderKL` of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from mvsdk_export.layers.blocks import GroupNorm, PointwiseConv, SiLU
from mvsdk_export.layers.resnet import Downsample, ResBlock, Upsample
from mvsdk_export.layers.transformer import MapAttention

EPS = 1e-6
"""Added to the variance of every normalisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderKLConfig:
    """Shape of an `AutoencoderKL`; the defaults are that of Stable Diffusion 1.5."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "latent_channels"}

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    """Of the levels, the finest first; each but the first halves height and width."""
    layers_per_block: int = 2
    latent_channels: int = 4
    scaling_factor: float = 0.18215
    """The denoiser sees latents times this, about unit variance."""
    norm_groups: int = 32
    use_quant_conv: bool = True
    """Whether a 1x1 convolution follows the encoder."""
    use_post_quant_conv: bool = True
    """Whether one comes before the decoder."""
    mid_block_add_attention: bool = True
    """Whether the middle blocks have attention."""

    @property
    def scale(self) -> int:
        """Pixels of a latent position along each side."""
        return 1 << (len(self.block_out_channels) - 1)

    def further_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the sides of latents, as `families.shapes.graph_sizes` asks for them."""
        return {"h": sizes["H"] // self.scale, "w": sizes["W"] // self.scale}


class AutoencoderShape(Protocol):
    """What the encoder depends on, of a configuration."""

    @property
    def in_channels(self) -> int:
        """Of a picture."""
        ...

    @property
    def block_out_channels(self) -> tuple[int, ...]:
        """Of the levels, the finest first."""
        ...

    @property
    def layers_per_block(self) -> int:
        """Residual blocks of a level."""
        ...

    @property
    def latent_channels(self) -> int:
        """Of latents."""
        ...

    @property
    def norm_groups(self) -> int:
        """Of all normalisations."""
        ...


class Stage(nn.Module):
    """Residual blocks of one resolution, and attention or the way to the next.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        layers: Residual blocks.
        groups: Groups of the normalisations.
        attention: Whether attention follows the first residual block.
        sampler: Where the stage hands to: "down", "up" or None.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        layers: int,
        groups: int,
        attention: bool = False,
        sampler: str | None = None,
    ) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * (layers - 1)]
        self.resnets = nn.ModuleList(
            ResBlock(width, channels, embedding_dim=None, groups=groups, eps=EPS)
            for width in widths
        )
        if attention:
            self.attentions = nn.ModuleList([MapAttention(channels, groups, EPS)])
        if sampler == "down":
            self.downsamplers = nn.ModuleList([Downsample(channels, padding=0)])
        if sampler == "up":
            self.upsamplers = nn.ModuleList([Upsample(channels)])
        self.has_attention, self.sampler = attention, sampler

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, in_channels, H, W)` to `(N, channels, H', W')`."""
        for index, resnet in enumerate(self.resnets):
            if self.has_attention and index == 1:
                x = self.attentions[0](x)
            x = resnet(x)
        if self.sampler == "down":
            return self.downsamplers[0](x)
        return self.upsamplers[0](x) if self.sampler == "up" else x


class ImageEncoder(nn.Module):
    """Map images to the moments of their latents.

    Args:
        config: Its shape.
        attention: Whether the middle block has attention.
    """

    def __init__(self, config: AutoencoderShape, *, attention: bool = True) -> None:
        super().__init__()
        widths, layers = config.block_out_channels, config.layers_per_block
        groups = config.norm_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Stage(
                widths[max(level - 1, 0)],
                width,
                layers=layers,
                groups=groups,
                sampler="down" if level < len(widths) - 1 else None,
            )
            for level, width in enumerate(widths)
        )
        self.mid_block = Stage(widths[-1], widths[-1], layers=2, groups=groups, attention=attention)
        self.activation = SiLU()
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, in_channels, H, W)` to `(N, 2 * latent_channels, h, w)`."""
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        x = self.activation(self.conv_norm_out(self.mid_block(x)))
        return self.conv_out(x)


class ImageDecoder(nn.Module):
    """Map latents to images."""

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        widths, layers = config.block_out_channels[::-1], config.layers_per_block
        groups = config.norm_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Stage(
            widths[0], widths[0], layers=2, groups=groups, attention=config.mid_block_add_attention
        )
        self.up_blocks = nn.ModuleList(
            Stage(
                widths[max(level - 1, 0)],
                width,
                layers=layers + 1,
                groups=groups,
                sampler="up" if level < len(widths) - 1 else None,
            )
            for level, width in enumerate(widths)
        )
        self.activation = SiLU()
        self.conv_norm_out = GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, latent_channels, h, w)` to `(N, out_channels, H, W)`."""
        x = self.mid_block(self.conv_in(x))
        for stage in self.up_blocks:
            x = stage(x)
        return self.conv_out(self.activation(self.conv_norm_out(x)))


class AutoencoderKL(nn.Module):
    """Encoder and decoder of images.

    Args:
        config: Shape of both.

    Reference:
        Rombach et al. 2022, arXiv:2112.10752.
    """

    def __init__(self, config: AutoencoderKLConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = ImageEncoder(config, attention=config.mid_block_add_attention)
        self.decoder = ImageDecoder(config)
        self.quant_conv = (
            PointwiseConv(2 * channels, 2 * channels) if config.use_quant_conv else nn.Identity()
        )
        self.post_quant_conv = (
            PointwiseConv(channels, channels) if config.use_post_quant_conv else nn.Identity()
        )

    def encode(self, images: Tensor) -> Tensor:
        """Map images to the most likely latents, one by one.

        Args:
            images: `(N, 3, H, W)` float32 in [-1, 1]; `config.scale` divides H and W.

        Returns:
            `(N, latent_channels, h, w)` float32, not multiplied by the scaling factor.
        """
        return self.quant_conv(self.encoder(images))[:, : self.config.latent_channels]

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents to images, one by one.

        Args:
            latents: `(N, latent_channels, h, w)` float32, without the scaling factor.

        Returns:
            `(N, 3, H, W)` float32, about [-1, 1].
        """
        return self.decoder(self.post_quant_conv(latents))
