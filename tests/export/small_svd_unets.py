"""Small denoisers of Stable Video Diffusion, whole and compressed in every way, with inputs."""

from __future__ import annotations

from typing import Any

import torch
from comparing import lively
from tiny_svd import UNET_FIELDS
from torch import Tensor

from mvsdk_export.families.svd.unet import SVDUNet, SVDUNetConfig

FRAMES = 5
SMALL = UNET_FIELDS | {"num_attention_heads": (2, 1, 4, 2), "num_frames": FRAMES}
COMPRESSED: dict[str, dict[str, Any]] = {
    "folded": {"folded_cross_attention": True},
    "frames": {"frame_levels": 1},
    "frames_linear": {"frame_levels": 2, "frame_down": "first", "frame_up": "linear"},
    "pruned": {"temporal_blocks": "10" * 12},
    "funnels": {"funnel_factor": 0.5},
    "all_funnels": {"funnel_factor": 0.25, "funnel_layers": "all"},
    "everything": {
        "folded_cross_attention": True,
        "frame_levels": 3,
        "temporal_blocks": "110" * 8,
        "funnel_factor": 0.5,
    },
}


def small_unet(**fields: Any) -> SVDUNet:
    return lively(SVDUNet(SVDUNetConfig(**(SMALL | fields))))


def small_inputs(
    clips: int = 1, frames: int = FRAMES, size: tuple[int, int] = (16, 24)
) -> dict[str, Tensor]:
    """Return what a denoiser takes for one or two clips, each time other values."""
    return {
        "sample": torch.randn(clips * frames, 8, *size),
        "timestep": torch.randn(clips),
        "encoder_hidden_states": torch.randn(clips, 1, SMALL["cross_attention_dim"]),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02], [24.0, 30.0, 0.1]])[:clips],
    }
