"""The denoiser of Stable Video Diffusion, compressed or not."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat, nn

from mvsdk_export.families.svd.added_values import AddedSinusoids
from mvsdk_export.families.svd.blocks import SpatioTemporalResBlock, TimeMixer
from mvsdk_export.families.svd.config import LEVELS, SVDUNetConfig, check_svd_unet_config
from mvsdk_export.families.svd.frames import FRAME_DOWN, FRAME_UP
from mvsdk_export.families.svd.transformer import TransformerSpatioTemporal
from mvsdk_export.layers.blocks import GroupNorm, SiLU
from mvsdk_export.layers.embeddings import Mlp, sinusoids
from mvsdk_export.layers.resnet import Downsample, Upsample

TemporalBlock = SpatioTemporalResBlock | TransformerSpatioTemporal


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What every block of a level is given beside the maps."""

    embedding: Tensor
    """Noise level and added values of every clip, `(B, E)`, behind their activation."""
    context: Tensor
    """Features of the image, `(B, L, D)`."""
    num_frames: int
    """Frames that a clip has at this level."""


class Stage(nn.Module):
    """Residual blocks and transformers of one resolution, and the way to the next.

    Args:
        config: Shape of the network.
        level: Resolution, 0 is the finest.
        in_channels: Channels of the input of each residual block.
        eps: Added to the variance in the residual blocks.
        attentions: Transformers, one behind each of the first residual blocks.
        sampler: Where the stage hands to: "down", "up" or None.
    """

    def __init__(
        self,
        config: SVDUNetConfig,
        level: int,
        in_channels: list[int],
        *,
        eps: float,
        attentions: int,
        sampler: str | None = None,
    ) -> None:
        super().__init__()
        channels = config.block_out_channels[level]
        self.resnets = nn.ModuleList(
            SpatioTemporalResBlock(
                width,
                channels,
                embedding_dim=4 * config.block_out_channels[0],
                groups=config.norm_groups,
                eps=eps,
                temporal_eps=eps,
                mixer=TimeMixer(0.5, of_spatial=True),
            )
            for width in in_channels
        )
        self.attentions = nn.ModuleList(
            TransformerSpatioTemporal(
                channels,
                config.cross_attention_dim,
                config.num_attention_heads[level],
                layers=config.transformer_layers_per_block,
                groups=config.norm_groups,
                inner=config.inner_head_dim(level),
                temporal_inner=config.inner_head_dim(level, temporal=True),
                folded=config.folded_cross_attention,
            )
            for _ in range(attentions)
        )
        if sampler == "down":
            self.downsamplers = nn.ModuleList([Downsample(channels)])
        if sampler == "up":
            self.upsamplers = nn.ModuleList([Upsample(channels)])
        self.sampler = sampler

    def step(self, index: int, x: Tensor, given: Conditions) -> Tensor:
        """Run one residual block and the transformer behind it, if there is one."""
        x = self.resnets[index](x, given.num_frames, given.embedding)
        if index < len(self.attentions):
            x = self.attentions[index](x, given.context, given.num_frames)
        return x

    def resample(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Change the resolution to that of the next stage; `size` is where upsampling leads."""
        if self.sampler == "down":
            return self.downsamplers[0](x)
        return self.upsamplers[0](x, size) if self.sampler == "up" else x

    def temporal_blocks(self, path: str) -> dict[str, TemporalBlock]:
        """Return the temporal blocks in the order of execution, by module path."""
        blocks: dict[str, TemporalBlock] = {}
        for index, resnet in enumerate(self.resnets):
            assert isinstance(resnet, SpatioTemporalResBlock)
            blocks[f"{path}.resnets.{index}"] = resnet
            if index < len(self.attentions):
                attention = self.attentions[index]
                assert isinstance(attention, TransformerSpatioTemporal)
                blocks[f"{path}.attentions.{index}"] = attention
        return blocks


class SVDUNet(nn.Module):
    """Denoiser of a clip that begins with a given image.

    Args:
        config: Shape of the network, and how it is compressed.

    Raises:
        ValueError: If there is no network of this shape.

    Reference:
        Blattmann et al. 2023, arXiv:2311.15127 (Stable Video Diffusion); Ben Yahia et al. 2024,
        arXiv:2412.07583 (MobileVD: folded cross-attention, fewer frames, pruning, funnels).
    """

    def __init__(self, config: SVDUNetConfig) -> None:
        super().__init__()
        check_svd_unet_config(config)
        self.config = config
        widths, layers = config.block_out_channels, config.layers_per_block
        embedding_dim = 4 * widths[0]
        self.activation = SiLU()
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = Mlp(widths[0], embedding_dim, embedding_dim)
        self.added_sinusoids = AddedSinusoids(config.addition_time_embed_dim)
        self.add_embedding = Mlp(
            config.projection_class_embeddings_input_dim, embedding_dim, embedding_dim
        )
        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]
        for level, width in enumerate(widths):
            last = level == LEVELS - 1
            stage = Stage(
                config,
                level,
                [skips[-1], *[width] * (layers - 1)],
                eps=1e-5 if last else 1e-6,
                attentions=0 if last else layers,
                sampler=None if last else "down",
            )
            self.down_blocks.append(stage)
            skips += [width] * (layers if last else layers + 1)
        width = widths[-1]
        self.mid_block = Stage(config, LEVELS - 1, [width, width], eps=1e-5, attentions=1)
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(LEVELS)):
            inputs = [width, *[widths[level]] * layers]
            stage = Stage(
                config,
                level,
                [channels + skips.pop() for channels in inputs],
                eps=1e-6,
                attentions=0 if level == LEVELS - 1 else layers + 1,
                sampler="up" if level else None,
            )
            self.up_blocks.append(stage)
            width = widths[level]
        self.conv_norm_out = GroupNorm(config.norm_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        for index, block in enumerate(self.temporal_blocks().values()):
            if not config.keeps_temporal_block(index):
                block.prune_()

    def temporal_blocks(self) -> dict[str, TemporalBlock]:
        """Return the blocks that mix frames, by module path, in the order of execution.

        Pruned ones are included: their temporal parts are gone, their place is not.
        """
        stages = {f"down_blocks.{index}": stage for index, stage in enumerate(self.down_blocks)}
        stages["mid_block"] = self.mid_block
        stages |= {f"up_blocks.{index}": stage for index, stage in enumerate(self.up_blocks)}
        blocks: dict[str, TemporalBlock] = {}
        for path, stage in stages.items():
            blocks |= _stage(stage).temporal_blocks(path)
        return blocks

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
    ) -> Tensor:
        """Predict the velocity of the noisy latents.

        Args:
            sample: Noisy latents, scaled, and the latents of the first frame beside them:
                `(B * F, in_channels, h, w)` float32, the frames of a clip adjacent.
            timestep: `(B,)` float32, a quarter of the logarithm of the noise level.
            encoder_hidden_states: Features of the image `(B, L, D)` float32; L is 1 in every
                public model, and must be if cross-attention is folded.
            added_time_ids: `(B, 3)` float32: frames per second less one, motion bucket, noise
                that was added to the image.

        Returns:
            `(B * F, out_channels, h, w)` float32.
        """
        conditions = self._conditions(sample, timestep, encoder_hidden_states, added_time_ids)
        x = self.conv_in(sample)
        skips = [x]
        for level in range(LEVELS):
            x = self._run_down(level, x, conditions[level], skips)
            if level < LEVELS - 1:
                x = self._hand_down(level, x, conditions[level].num_frames)
                skips.append(x)
        x = self.mid_block.step(0, x, conditions[-1])
        x = self.mid_block.step(1, x, conditions[-1])
        for level in reversed(range(LEVELS)):
            stage = _stage(self.up_blocks[LEVELS - 1 - level])
            for index in range(len(stage.resnets)):
                x = stage.step(index, cat([x, skips.pop()], dim=1), conditions[level])
            if level:
                height, width = skips[-1].shape[2:]
                x = stage.resample(x, (height, width))
            if level and level == self.config.frame_levels:
                x = FRAME_UP[self.config.frame_up](x, conditions[level - 1].num_frames)
        return self.conv_out(self.activation(self.conv_norm_out(x)))

    def features(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
    ) -> list[tuple[Tensor, int]]:
        """Return what each down block makes of the noisy latents; nothing behind them runs.

        Takes the arguments of `forward`.

        Returns:
            For each level, finest first: `(B * F', C, h', w')` before frames are halved, and F'.
        """
        conditions = self._conditions(sample, timestep, encoder_hidden_states, added_time_ids)
        x = self.conv_in(sample)
        found: list[tuple[Tensor, int]] = []
        for level in range(LEVELS):
            num_frames = conditions[level].num_frames
            x = self._run_down(level, x, conditions[level], [])
            found.append((x, num_frames))
            if level < LEVELS - 1:
                x = self._hand_down(level, x, num_frames)
        return found

    def _conditions(
        self, sample: Tensor, timestep: Tensor, context: Tensor, added_time_ids: Tensor
    ) -> list[Conditions]:
        """Return the conditions of every level."""
        b, config = timestep.shape[0], self.config
        times = sinusoids(timestep, config.block_out_channels[0])
        added = self.added_sinusoids(added_time_ids)
        embedding = self.time_embedding(times.to(sample.dtype))
        embedding = self.activation(embedding + self.add_embedding(added.to(sample.dtype)))
        num_frames = sample.shape[0] // b
        halved = range(config.frame_levels, LEVELS) if config.frame_levels else ()
        return [
            Conditions(
                embedding=embedding,
                context=context,
                num_frames=(num_frames + 1) // 2 if level in halved else num_frames,
            )
            for level in range(LEVELS)
        ]

    def _run_down(self, level: int, x: Tensor, given: Conditions, skips: list[Tensor]) -> Tensor:
        """Run a down block, its downsampler included, and append what its steps make."""
        stage = _stage(self.down_blocks[level])
        for index in range(len(stage.resnets)):
            x = stage.step(index, x, given)
            skips.append(x)
        return stage.resample(x)

    def _hand_down(self, level: int, x: Tensor, num_frames: int) -> Tensor:
        """Return what the next level is given: half the frames, where they are halved."""
        if level + 1 != self.config.frame_levels:
            return x
        return FRAME_DOWN[self.config.frame_down](x, num_frames)


def _stage(module: nn.Module) -> Stage:
    assert isinstance(module, Stage)
    return module
