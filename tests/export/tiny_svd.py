"""Stable Video Diffusion, small and random: its networks, and a folder as diffusers writes it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

INDEX = "model_index.json"
SCHEDULE = "scheduler/scheduler_config.json"
PREPROCESSOR = "feature_extractor/preprocessor_config.json"
UNET = "unet/diffusion_pytorch_model.safetensors"
UNET_CONFIG = "unet/config.json"
VAE_CONFIG = "vae/config.json"
CLIP_CONFIG = "image_encoder/config.json"

# What the public classes and ours are made with, if they are to be small.
UNET_FIELDS: dict[str, Any] = {
    "block_out_channels": (32, 32, 64, 64),
    "num_attention_heads": (1, 1, 2, 2),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "num_frames": 4,
}
VAE_FIELDS: dict[str, Any] = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
CLIP_FIELDS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 16,
    "hidden_act": "gelu",
}
VAE_BLOCKS = ("DownEncoderBlock2D",) * 4
"""What the public autoencoder wants to be told beside its fields."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars, notes and warnings of diffusers and transformers from a test."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def public_scheduler() -> Any:
    """Return the `EulerDiscreteScheduler` of Stable Video Diffusion."""
    with quiet():
        from diffusers import EulerDiscreteScheduler

        return EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_spacing="leading",
            timestep_type="continuous",
            steps_offset=1,
        )


def tiny_pipeline(
    seed: int = 0, *, unet: Mapping[str, Any] | None = None, vae: Mapping[str, Any] | None = None
) -> Any:
    """Return a `StableVideoDiffusionPipeline`, of four frames unless other fields are given."""
    with quiet():
        from diffusers import (
            AutoencoderKLTemporalDecoder,
            StableVideoDiffusionPipeline,
            UNetSpatioTemporalConditionModel,
        )
        from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

        torch.manual_seed(seed)
        pipeline = StableVideoDiffusionPipeline(
            unet=UNetSpatioTemporalConditionModel(**UNET_FIELDS | dict(unet or {})),
            vae=AutoencoderKLTemporalDecoder(
                **VAE_FIELDS | dict(vae or {}), down_block_types=VAE_BLOCKS, scaling_factor=0.18215
            ),
            image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP_FIELDS)),
            scheduler=public_scheduler(),
            feature_extractor=CLIPImageProcessor(),
        )
    for part in (pipeline.unet, pipeline.vae, pipeline.image_encoder):
        part.eval()
    return pipeline


def write_pipeline(pipeline: Any, path: Path, **options: Any) -> Path:
    """Write a pipeline with diffusers' own writer; `options` go to `save_pretrained`."""
    with quiet():
        pipeline.save_pretrained(path, **options)
    return path
