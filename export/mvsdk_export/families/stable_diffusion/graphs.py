"""The graphs of Stable Diffusion that phones get: a prompt in, frames out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvsdk_export.families.stable_diffusion.vae import AutoencoderKL


class DecoderGraph(nn.Module):
    """Map the latents of frames to frames, one by one."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Map scaled latents `(F, C, h, w)` to frames `(F, H, W, 3)` float32 in [0, 1]."""
        frames = self.vae.decode(latents * (1 / self.vae.config.scaling_factor))
        return torch.clamp(frames * 0.5 + 0.5, 0.0, 1.0).permute(0, 2, 3, 1)
