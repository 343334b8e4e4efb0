"""The configuration of the denoiser: its public fields, and how it is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mvsdk._json import describe
from mvsdk_export.families.svd.frames import FRAME_DOWN, FRAME_UP

LEVELS = 4
"""Resolutions of the network; the last one has no attention."""

FUNNEL_LAYERS = ("spatial", "all")
"""Self-attentions that funnels can be in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SVDUNetConfig:
    """Shape of an `SVDUNet`; the defaults are the 14-frame model, not compressed."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "out_channels", "D": "cross_attention_dim"}

    in_channels: int = 8
    """Channels of the noisy latents and of those of the first frame."""
    out_channels: int = 4
    block_out_channels: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    num_attention_heads: tuple[int, int, int, int] = (5, 10, 20, 20)
    """Of the four levels; the middle block takes the last."""
    cross_attention_dim: int = 1024
    transformer_layers_per_block: int = 1
    addition_time_embed_dim: int = 256
    """Width of the embedding of each of the three added values."""
    projection_class_embeddings_input_dim: int = 768
    """Width of all three."""
    num_frames: int = 14
    norm_groups: int = 32
    folded_cross_attention: bool = False
    """True if cross-attention is one vector per layer, which is exact for one image feature."""
    frame_levels: int = 0
    """k: frames are halved between levels k - 1 and k, and restored on the way up; 0: never.

    Attention between the frames that are left numbers them as it does those of a shorter clip.
    """
    frame_down: str = "mean"
    """Operator that halves frames, of `FRAME_DOWN`."""
    frame_up: str = "repeat"
    """Operator that restores them, of `FRAME_UP`."""
    temporal_blocks: str = "all"
    """Temporal blocks that stay: "all", or for each, in the order of execution, 1 or 0 (pruned)."""
    funnel_factor: float = 1.0
    """Width of the heads of self-attentions over the ordinary width."""
    funnel_layers: str = "spatial"
    """Self-attentions with that width, of `FUNNEL_LAYERS`."""

    @property
    def temporal_block_count(self) -> int:
        """Temporal blocks of the network, pruned ones included."""
        down, up = self.layers_per_block, self.layers_per_block + 1
        return LEVELS * (down + up) + (LEVELS - 1) * (down + up) + 3

    def keeps_temporal_block(self, index: int) -> bool:
        """Return whether the temporal block with this place in the order of execution stays."""
        return self.temporal_blocks == "all" or self.temporal_blocks[index] == "1"

    def head_dim(self, level: int) -> int:
        """Return the ordinary width of a head of a level."""
        return self.block_out_channels[level] // self.num_attention_heads[level]

    def inner_head_dim(self, level: int, *, temporal: bool = False) -> int:
        """Return the width of a head of the self-attentions of a level, funnels included."""
        if temporal and self.funnel_layers != "all":
            return self.head_dim(level)
        return max(1, round(self.head_dim(level) * self.funnel_factor))


def check_svd_unet_config(config: SVDUNetConfig) -> None:
    """Check what the types of the fields cannot say.

    Raises:
        ValueError: With the first field that no network can have.
    """
    for name, value, allowed in (
        ("frame_down", config.frame_down, tuple(FRAME_DOWN)),
        ("frame_up", config.frame_up, tuple(FRAME_UP)),
        ("funnel_layers", config.funnel_layers, FUNNEL_LAYERS),
        ("frame_levels", config.frame_levels, tuple(range(LEVELS))),
    ):
        if value not in allowed:
            msg = f"{name} is {describe(value)}; known: {', '.join(map(str, allowed))}"
            raise ValueError(msg)
    if not 0 < config.funnel_factor <= 1:
        msg = f"funnel_factor is {config.funnel_factor:g}; it is above 0 and at most 1"
        raise ValueError(msg)
    count, kept = config.temporal_block_count, config.temporal_blocks
    if kept != "all" and (len(kept) != count or set(kept) - {"0", "1"}):
        msg = f"temporal_blocks is {describe(kept)}; it is 'all' or {count} characters 0 and 1"
        raise ValueError(msg)
    if config.projection_class_embeddings_input_dim != 3 * config.addition_time_embed_dim:
        msg = (
            f"projection_class_embeddings_input_dim is "
            f"{config.projection_class_embeddings_input_dim}; it is three times "
            f"addition_time_embed_dim, {3 * config.addition_time_embed_dim}"
        )
        raise ValueError(msg)
    if config.addition_time_embed_dim % 2:
        msg = f"addition_time_embed_dim is {config.addition_time_embed_dim}; 2 divides it"
        raise ValueError(msg)
    for level, (width, heads) in enumerate(
        zip(config.block_out_channels, config.num_attention_heads, strict=True)
    ):
        for name, divisor in (("norm_groups", config.norm_groups), ("heads", heads), ("2", 2)):
            if width % divisor:
                msg = f"block_out_channels[{level}] is {width}; {name} ({divisor}) divides it"
                raise ValueError(msg)
