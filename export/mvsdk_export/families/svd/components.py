"""Tensors and components of the family of Stable Video Diffusion, which several recipes have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mvsdk_export.families.recipe import ComponentRecipe, TensorRecipe, even_floors

WEIGHTS = "diffusion_pytorch_model.safetensors"

IMAGE = TensorRecipe(name="image", shape=(1, "H", "W", 3), dtype="uint8")
FEATURES = TensorRecipe(name="encoder_hidden_states", shape=(1, 1, "D"), dtype="float32")
IMAGE_LATENTS = TensorRecipe(name="image_latents", shape=(1, "C", "h", "w"), dtype="float32")
SAMPLE = TensorRecipe(name="sample", shape=("F", "C", "h", "w"), dtype="float32")
TIMESTEP = TensorRecipe(name="timestep", shape=(1,), dtype="float32")
TIME_IDS = TensorRecipe(name="added_time_ids", shape=(1, 3), dtype="float32")
LATENTS = TensorRecipe(name="latents", shape=("f", "C", "h", "w"), dtype="float32")
FRAMES = TensorRecipe(name="frames", shape=("f", "H", "W", 3), dtype="uint8")

IMAGE_ENCODER = ComponentRecipe(
    name="image_encoder",
    role="image_encoder",
    network="mvsdk_export.families.svd.clip_vision:ClipVisionEncoder",
    config="mvsdk_export.families.svd.clip_vision:ClipVisionConfig",
    folder="image_encoder",
    weights="model.safetensors",
    wrapper="mvsdk_export.families.svd.graphs:ImageEncoderGraph",
    wrapper_options=("height", "width"),
    # Numbers 0, 1, 2, ... that older versions of transformers save with the weights.
    unused_weights=("vision_model.embeddings.position_ids",),
    inputs=(IMAGE,),
    outputs=(FEATURES,),
)
DENOISER = ComponentRecipe(
    name="unet",
    role="denoiser",
    network="mvsdk_export.families.svd.unet:SVDUNet",
    config="mvsdk_export.families.svd.unet:SVDUNetConfig",
    folder="unet",
    weights=WEIGHTS,
    wrapper="mvsdk_export.families.svd.graphs:DenoiserGraph",
    wrapper_options=("guidance",),
    inputs=(SAMPLE, TIMESTEP, FEATURES, IMAGE_LATENTS, TIME_IDS),
    outputs=(TensorRecipe(name="model_output", shape=SAMPLE.shape, dtype="float32"),),
)
ONE_STEP_DENOISER = replace(
    DENOISER,
    wrapper="mvsdk_export.families.svd.graphs:OneStepGraph",
    wrapper_options=("sigma",),
    inputs=(SAMPLE, FEATURES, IMAGE_LATENTS, TIME_IDS),
)

FLOORS_DB: Mapping[str, Mapping[str, float]] = {
    **even_floors("image_encoder", "vae_encoder", "unet", "vae_decoder"),
    "fp32": {
        "image_encoder": 80.0,
        "vae_encoder": 80.0,
        "unet": 80.0,
        "vae_decoder": 55.0,
        "end_to_end": 50.0,
    },
    "fp16": {
        "image_encoder": 45.0,
        "vae_encoder": 45.0,
        "unet": 45.0,
        "vae_decoder": 45.0,
        "end_to_end": 40.0,
    },
    "w8a16": {
        "image_encoder": 25.0,
        "vae_encoder": 30.0,
        "unet": 22.0,
        "vae_decoder": 35.0,
        "end_to_end": 30.0,
    },
}
"""Lowest parity of models that begin with a picture."""


def vae_components(
    network: str, config: str, decoder_wrapper: str
) -> tuple[ComponentRecipe, ComponentRecipe]:
    """Return the two components of an autoencoder: of the picture, and of the clip.

    Args:
        network: `"module:class"` of the autoencoder.
        config: `"module:class"` of its configuration.
        decoder_wrapper: `"module:class"` of the graph that makes frames.
    """
    encoder = ComponentRecipe(
        name="vae_encoder",
        role="vae_encoder",
        network=network,
        config=config,
        folder="vae",
        weights=WEIGHTS,
        wrapper="mvsdk_export.families.svd.graphs:FirstFrameGraph",
        inputs=(
            IMAGE,
            TensorRecipe(name="noise", shape=(1, 3, "H", "W"), dtype="float32"),
            TensorRecipe(name="noise_aug_strength", shape=(1,), dtype="float32"),
        ),
        outputs=(IMAGE_LATENTS,),
    )
    decoder = replace(
        encoder,
        name="vae_decoder",
        role="vae_decoder",
        wrapper=decoder_wrapper,
        inputs=(LATENTS,),
        outputs=(FRAMES,),
    )
    return encoder, decoder
