"""The configuration of the denoiser: that of the image model, and what temporal layers it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mvsdk._json import describe

TEMPORAL_LAYERS = ("none", "motion", "mixed", "mixed_attention")
"""Kinds of temporal layers: none; motion modules; layers that are mixed in, convolution and
attention, or attention alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Shape of a `UNet`; the defaults are Stable Diffusion 1.5 without motion."""

    SYMBOLS: ClassVar[Mapping[str, str]] = {"C": "out_channels", "D": "cross_attention_dim"}

    in_channels: int = 4
    """Of the noisy latents, and of what stands beside them: a picture (8), a small one (7)."""
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Of the levels, the finest first."""
    layers_per_block: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of the levels on the way down; on the way up there is one more."""
    down_attention: tuple[bool, ...] = (True, True, True, False)
    """Whether the levels have attention on the way down."""
    up_attention: tuple[bool, ...] = (True, True, True, False)
    """Likewise on the way up, the finest level first."""
    mid_block: bool = True
    """Whether there is a middle block."""
    attention_heads: tuple[int, ...] = (8, 8, 8, 8)
    """Of the levels; the middle block takes the last. Public files call this
    `attention_head_dim`."""
    only_cross_attention: tuple[bool, ...] = (False, False, False, False)
    """Whether the first attention of the levels is to the text as well."""
    mid_block_only_cross_attention: bool = False
    cross_attention_dim: int = 768
    transformer_layers_per_block: tuple[int, ...] = (1, 1, 1, 1)
    use_linear_projection: bool = False
    """Whether the layers around transformers are linear ones, not convolutions."""
    num_class_embeds: int = 0
    """Classes that the noise level is embedded with, such as noise on a small picture; 0: none."""
    norm_groups: int = 32
    norm_eps: float = 1e-5
    sample_size: int = 64
    """Sides of the latents that the model was trained with."""
    num_frames: int = 1
    temporal_layers: str = "none"
    """Of `TEMPORAL_LAYERS`."""
    motion_heads: tuple[int, ...] = (8, 8, 8, 8)
    """Heads of temporal attention, of the levels."""
    motion_transformer_layers: tuple[int, ...] = (1, 1, 1, 1)
    motion_mid_block: bool = True
    """Whether the middle block has temporal layers."""
    motion_norm_groups: int = 32
    motion_max_frames: int = 32
    """Places that a frame may have."""

    @property
    def levels(self) -> int:
        """Resolutions of the network."""
        return len(self.block_out_channels)

    @property
    def has_motion(self) -> bool:
        """Whether frames know each other."""
        return self.temporal_layers != "none"


def check_unet_config(config: UNetConfig) -> None:
    """Check what the types of the fields cannot say.

    Raises:
        ValueError: With the first field that no network can have.
    """
    levels = config.levels
    for name in (
        *("layers_per_block", "down_attention", "up_attention", "attention_heads"),
        *("only_cross_attention", "transformer_layers_per_block"),
        *("motion_heads", "motion_transformer_layers"),
    ):
        values: tuple[object, ...] = getattr(config, name)
        if len(values) != levels:
            msg = f"{name} has {len(values)} values for {levels} levels of block_out_channels"
            raise ValueError(msg)
    if config.temporal_layers not in TEMPORAL_LAYERS:
        known = ", ".join(TEMPORAL_LAYERS)
        msg = f"temporal_layers is {describe(config.temporal_layers)}; known: {known}"
        raise ValueError(msg)
    if config.has_motion and config.num_frames > config.motion_max_frames:
        msg = f"num_frames is {config.num_frames}; motion has {config.motion_max_frames} places"
        raise ValueError(msg)
    for level, width in enumerate(config.block_out_channels):
        divisors = {"norm_groups": config.norm_groups, "2": 2}
        if config.down_attention[level] or config.up_attention[level] or level == levels - 1:
            divisors["attention_heads"] = config.attention_heads[level]
        if config.has_motion:
            divisors["motion_heads"] = config.motion_heads[level]
            divisors["motion_norm_groups"] = config.motion_norm_groups
        for name, divisor in divisors.items():
            if width % divisor:
                msg = f"block_out_channels[{level}] is {width}; {name} ({divisor}) divides it"
                raise ValueError(msg)
