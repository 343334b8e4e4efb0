"""Model folders of image-to-video networks with some ten thousand random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mvsdk_export.checkpoints import ModelFolder, save_model_folder
from mvsdk_export.checkpoints.scheduler import EDMScheduler, OneStepScheduler, Scheduler
from mvsdk_export.families import find_recipe
from mvsdk_export.families.svd.clip_vision import ClipVisionConfig, ClipVisionEncoder
from mvsdk_export.families.svd.unet import SVDUNet, SVDUNetConfig
from mvsdk_export.families.svd.vae import TemporalAutoencoder, TemporalAutoencoderConfig

TINY_UNET = SVDUNetConfig(
    block_out_channels=(8, 16, 16, 16),
    layers_per_block=1,
    num_attention_heads=(1, 2, 2, 2),
    cross_attention_dim=16,
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=24,
    num_frames=4,
    norm_groups=4,
)
MOBILE_UNET = replace(TINY_UNET, folded_cross_attention=True, frame_levels=1)


def tiny_animator_networks(config: SVDUNetConfig, seed: int = 0) -> dict[str, nn.Module]:
    """Return small networks of the recipe mobilevd; autoencoders are under the encoder's name."""
    torch.manual_seed(seed)
    networks: dict[str, nn.Module] = {
        "image_encoder": ClipVisionEncoder(
            ClipVisionConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=28,
                patch_size=14,
                projection_dim=16,
            )
        ),
        "vae_encoder": TemporalAutoencoder(
            TemporalAutoencoderConfig(
                block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4
            )
        ),
        "unet": SVDUNet(config),
    }
    for network in networks.values():
        network.eval()
    return networks


def write_tiny_animator_folder(
    path: Path, *, one_step: bool = True, config: SVDUNetConfig | None = None
) -> ModelFolder:
    """Write a tiny model folder of the recipe mobilevd, compressed if it takes one step."""
    scheduler: Scheduler = OneStepScheduler() if one_step else EDMScheduler()
    chosen = (MOBILE_UNET if one_step else TINY_UNET) if config is None else config
    return save_model_folder(
        path,
        find_recipe("mobilevd"),
        tiny_animator_networks(chosen),
        scheduler=scheduler,
        model_card="# Random weights\n",
    )
