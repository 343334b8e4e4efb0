"""The denoiser: an image model of Stable Diffusion's layout, with temporal layers or without."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat, nn

from mvsdk_export.families.stable_diffusion.config import UNetConfig, check_unet_config
from mvsdk_export.families.stable_diffusion.motion import MixedLayers, MotionModule
from mvsdk_export.layers.blocks import GroupNorm, PointwiseConv, SiLU
from mvsdk_export.layers.embeddings import Mlp, TimeSinusoids
from mvsdk_export.layers.resnet import Downsample, ResBlock, Upsample
from mvsdk_export.layers.transformer import (
    FeedForward,
    SelfAttention,
    TokenCrossAttention,
    TokenProjection,
)

MAX_TIMESTEP = 999
"""The noisiest timestep that a public model was trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What every block is given beside the maps."""

    embedding: Tensor
    """Time of every clip, `(B, E)`, behind its activation."""
    context: Tensor
    """Text of every clip, `(B, L, D)`."""
    num_frames: int


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward layer, each behind a normalisation.

    Args:
        width: Channels of a token.
        context_width: Channels of a token of the text.
        heads: Heads of both attentions.
        only_cross: Whether the first attention is to the text as well.
    """

    def __init__(self, width: int, context_width: int, heads: int, *, only_cross: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1: SelfAttention | TokenCrossAttention = (
            TokenCrossAttention(width, context_width, heads)
            if only_cross
            else SelfAttention(width, heads)
        )
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = TokenCrossAttention(width, context_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, given: Conditions) -> Tensor:
        """Map tokens `(B * F, P, width)` to the same shape."""
        h = self.norm1(x)
        x = x + (
            self.attn1(h, given.context)
            if isinstance(self.attn1, TokenCrossAttention)
            else self.attn1(h, given.num_frames)
        )
        x = x + self.attn2(self.norm2(x), given.context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """Transformer layers over the positions of each frame, with a residual connection.

    Args:
        channels: Channels of the maps, and of a token.
        context_width: Channels of a token of the text.
        heads: Heads of every attention.
        layers: Transformer layers.
        groups: Groups of the normalisation.
        linear: Whether the layers around are linear ones, not convolutions; files differ in it.
        only_cross: As `TransformerLayer` takes it.
    """

    def __init__(
        self,
        channels: int,
        context_width: int,
        heads: int,
        *,
        layers: int,
        groups: int,
        linear: bool,
        only_cross: bool,
    ) -> None:
        super().__init__()
        self.linear = linear
        project = TokenProjection if linear else PointwiseConv
        self.norm = GroupNorm(groups, channels, 1e-6)
        self.proj_in = project(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TransformerLayer(channels, context_width, heads, only_cross=only_cross)
            for _ in range(layers)
        )
        self.proj_out = project(channels, channels)

    def forward(self, x: Tensor, given: Conditions) -> Tensor:
        """Map `(B * F, channels, H, W)` to the same shape."""
        n, channels, h, w = x.shape
        maps = self.norm(x)
        if not self.linear:
            maps = self.proj_in(maps)
        tokens = maps.permute(0, 2, 3, 1).reshape(n, h * w, channels)
        if self.linear:
            tokens = self.proj_in(tokens)
        for layer in self.transformer_blocks:
            tokens = layer(tokens, given)
        if self.linear:
            tokens = self.proj_out(tokens)
        maps = tokens.reshape(n, h, w, channels).permute(0, 3, 1, 2)
        return x + (maps if self.linear else self.proj_out(maps))


class Stage(nn.Module):
    """Residual blocks of one resolution, what follows each, and the way to the next resolution.

    Behind a residual block comes a transformer, where the level has them, and behind that temporal
    layers, where the model has them.

    Args:
        config: Shape of the network.
        level: Resolution, 0 is the finest.
        in_channels: Channels of the input of each residual block.
        attentions: Transformers, one behind each of the first residual blocks.
        temporal: Temporal layers, one behind each of the first residual blocks.
        only_cross: As `TransformerLayer` takes it.
        sampler: Where the stage hands to: "down", "up" or None.
    """

    def __init__(
        self,
        config: UNetConfig,
        level: int,
        in_channels: list[int],
        *,
        attentions: int,
        temporal: int,
        only_cross: bool,
        sampler: str | None = None,
    ) -> None:
        super().__init__()
        channels = config.block_out_channels[level]
        self.resnets = nn.ModuleList(
            ResBlock(
                width,
                channels,
                embedding_dim=4 * config.block_out_channels[0],
                groups=config.norm_groups,
                eps=config.norm_eps,
            )
            for width in in_channels
        )
        if attentions:
            self.attentions = nn.ModuleList(
                Transformer(
                    channels,
                    config.cross_attention_dim,
                    config.attention_heads[level],
                    layers=config.transformer_layers_per_block[level],
                    groups=config.norm_groups,
                    linear=config.use_linear_projection,
                    only_cross=only_cross,
                )
                for _ in range(attentions)
            )
        if temporal:
            self.motion_modules = nn.ModuleList(
                temporal_layer(config, level) for _ in range(temporal)
            )
        if sampler == "down":
            self.downsamplers = nn.ModuleList([Downsample(channels)])
        if sampler == "up":
            self.upsamplers = nn.ModuleList([Upsample(channels)])
        self.counts, self.sampler = (attentions, temporal), sampler

    def step(self, index: int, x: Tensor, given: Conditions) -> Tensor:
        """Run one residual block and what follows it."""
        return self.follow(index, self.resnets[index](x, given.embedding), given)

    def follow(self, index: int, x: Tensor, given: Conditions) -> Tensor:
        """Run what follows a residual block: transformer and temporal layers, if there are any."""
        attentions, temporal = self.counts
        if index < attentions:
            x = self.attentions[index](x, given)
        return self.motion_modules[index](x, given.num_frames) if index < temporal else x

    def resample(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Change the resolution to that of the next stage; `size` is where upsampling leads."""
        if self.sampler == "down":
            return self.downsamplers[0](x)
        return self.upsamplers[0](x, size) if self.sampler == "up" else x


def temporal_layer(config: UNetConfig, level: int) -> MotionModule | MixedLayers:
    """Return the temporal layers behind one spatial layer of a level."""
    channels, heads = config.block_out_channels[level], config.motion_heads[level]
    groups = config.motion_norm_groups
    if config.temporal_layers == "motion":
        layers = config.motion_transformer_layers[level]
        return MotionModule(channels, heads, layers=layers, groups=groups)
    convolution = config.temporal_layers == "mixed"
    return MixedLayers(channels, heads, groups=groups, convolution=convolution)


class UNet(nn.Module):
    """Denoiser of frames, which know each other if it has temporal layers.

    Names of weights are those of `UNet2DConditionModel`; temporal ones are those of a
    `MotionAdapter`. Two folders, one state dict.

    Args:
        config: Shape of the network.

    Raises:
        ValueError: If there is no network of this shape.

    Reference:
        Rombach et al. 2022, arXiv:2112.10752; Guo et al. 2023, arXiv:2307.04725 (AnimateDiff);
        Blattmann et al. 2023, arXiv:2304.08818 (Video LDM).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        check_unet_config(config)
        self.config = config
        widths, levels = config.block_out_channels, config.levels
        embedding_dim = 4 * widths[0]
        self.activation = SiLU()
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_sinusoids = TimeSinusoids(widths[0], MAX_TIMESTEP)
        self.time_embedding = Mlp(widths[0], embedding_dim, embedding_dim)
        if config.num_class_embeds:
            self.class_embedding = nn.Embedding(config.num_class_embeds, embedding_dim)
        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]
        for level, width in enumerate(widths):
            last, layers = level == levels - 1, config.layers_per_block[level]
            stage = Stage(
                config,
                level,
                [skips[-1], *[width] * (layers - 1)],
                attentions=layers if config.down_attention[level] else 0,
                temporal=layers if config.has_motion else 0,
                only_cross=config.only_cross_attention[level],
                sampler=None if last else "down",
            )
            self.down_blocks.append(stage)
            skips += [width] * (layers if last else layers + 1)
        width = widths[-1]
        if config.mid_block:
            self.mid_block = Stage(
                config,
                levels - 1,
                [width, width],
                attentions=1,
                temporal=1 if config.has_motion and config.motion_mid_block else 0,
                only_cross=config.mid_block_only_cross_attention,
            )
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(levels)):
            layers = config.layers_per_block[level] + 1
            inputs = [width, *[widths[level]] * (layers - 1)]
            stage = Stage(
                config,
                level,
                [channels + skips.pop() for channels in inputs],
                attentions=layers if config.up_attention[level] else 0,
                temporal=layers if config.has_motion else 0,
                only_cross=config.only_cross_attention[level],
                sampler="up" if level else None,
            )
            self.up_blocks.append(stage)
            width = widths[level]
        self.conv_norm_out = GroupNorm(config.norm_groups, widths[0], config.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise, or the velocity, of noisy latents.

        Args:
            sample: Noisy latents, scaled, and what stands beside them: `(B * F, in_channels, h, w)`
                float32, the frames of a clip adjacent.
            timestep: `(B,)` float32, of training, 0 to `MAX_TIMESTEP`.
            encoder_hidden_states: Text `(B, L, cross_attention_dim)` float32.
            class_labels: `(B,)` int32, of networks with classes.

        Returns:
            `(B * F, out_channels, h, w)` float32.
        """
        embedding = self.time_embedding(self.time_sinusoids(timestep).to(sample.dtype))
        if class_labels is not None:
            embedding = embedding + self.class_embedding(class_labels)
        given = Conditions(
            embedding=self.activation(embedding),
            context=encoder_hidden_states,
            num_frames=sample.shape[0] // timestep.shape[0],
        )
        x = self.conv_in(sample)
        skips = [x]
        for block in self.down_blocks:
            stage = _stage(block)
            for index in range(len(stage.resnets)):
                x = stage.step(index, x, given)
                skips.append(x)
            if stage.sampler:
                x = stage.resample(x)
                skips.append(x)
        if self.config.mid_block:
            stage = _stage(self.mid_block)
            x = stage.resnets[1](stage.step(0, x, given), given.embedding)
        for block in self.up_blocks:
            stage = _stage(block)
            for index in range(len(stage.resnets)):
                x = stage.step(index, cat([x, skips.pop()], dim=1), given)
            if stage.sampler:
                height, width = skips[-1].shape[2:]
                x = stage.resample(x, (height, width))
        return self.conv_out(self.activation(self.conv_norm_out(x)))


def _stage(module: nn.Module) -> Stage:
    assert isinstance(module, Stage)
    return module
