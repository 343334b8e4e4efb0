"""mobilevd: a picture comes alive, with Stable Video Diffusion made small enough for a phone.

Checkpoints are public ones of Stable Video Diffusion (14 or 25 frames), and what
`mvsdk compress` makes of them.
"""

from __future__ import annotations

from dataclasses import replace

from mvsdk_export.recipes.spec import (
    ComponentRecipe,
    DecoderVariant,
    Recipe,
    SchedulerVariant,
    TensorRecipe,
)

_IMAGE = TensorRecipe(name="image", shape=(1, "H", "W", 3), dtype="uint8")
_FEATURES = TensorRecipe(name="encoder_hidden_states", shape=(1, 1, "D"), dtype="float32")
_IMAGE_LATENTS = TensorRecipe(name="image_latents", shape=(1, "C", "h", "w"), dtype="float32")
_SAMPLE = TensorRecipe(name="sample", shape=("F", "C", "h", "w"), dtype="float32")
_TIMESTEP = TensorRecipe(name="timestep", shape=(1,), dtype="float32")
_TIME_IDS = TensorRecipe(name="added_time_ids", shape=(1, 3), dtype="float32")
_LATENTS = TensorRecipe(name="latents", shape=("f", "C", "h", "w"), dtype="float32")
_FRAMES = TensorRecipe(name="frames", shape=("f", "H", "W", 3), dtype="uint8")

_VAE = "mvsdk_export.networks.svd.vae:TemporalAutoencoder"
_VAE_CONFIG = "mvsdk_export.networks.svd.vae:TemporalAutoencoderConfig"
_WEIGHTS = "diffusion_pytorch_model.safetensors"

_MANY_STEPS = ComponentRecipe(
    name="unet",
    network="mvsdk_export.networks.svd.unet:SVDUNet",
    config="mvsdk_export.networks.svd.unet:SVDUNetConfig",
    folder="unet",
    weights=_WEIGHTS,
    wrapper="mvsdk_export.networks.svd.graphs:DenoiserGraph",
    wrapper_options=("guidance",),
    inputs=(_SAMPLE, _TIMESTEP, _FEATURES, _IMAGE_LATENTS, _TIME_IDS),
    outputs=(TensorRecipe(name="model_output", shape=("F", "C", "h", "w"), dtype="float32"),),
)
_ONE_STEP = replace(
    _MANY_STEPS,
    wrapper="mvsdk_export.networks.svd.graphs:OneStepGraph",
    wrapper_options=("sigma",),
    inputs=(_SAMPLE, _FEATURES, _IMAGE_LATENTS, _TIME_IDS),
)
_LIGHT_DECODER = ComponentRecipe(
    name="vae_decoder",
    network="mvsdk_export.networks.svd.light_decoder:LightDecoder",
    config="mvsdk_export.networks.svd.light_decoder:LightDecoderConfig",
    folder="decoder",
    weights=_WEIGHTS,
    wrapper="mvsdk_export.networks.svd.light_decoder:LightDecoderGraph",
    unused_weights=("encoder.",),
    inputs=(_LATENTS,),
    outputs=(_FRAMES,),
)

MOBILEVD = Recipe(
    name="mobilevd",
    task="image_to_video",
    components=(
        ComponentRecipe(
            name="image_encoder",
            network="mvsdk_export.networks.svd.clip_vision:ClipVisionEncoder",
            config="mvsdk_export.networks.svd.clip_vision:ClipVisionConfig",
            folder="image_encoder",
            weights="model.safetensors",
            wrapper="mvsdk_export.networks.svd.graphs:ImageEncoderGraph",
            wrapper_options=("height", "width"),
            inputs=(_IMAGE,),
            outputs=(_FEATURES,),
        ),
        ComponentRecipe(
            name="vae_encoder",
            network=_VAE,
            config=_VAE_CONFIG,
            folder="vae",
            weights=_WEIGHTS,
            wrapper="mvsdk_export.networks.svd.graphs:FirstFrameGraph",
            inputs=(
                _IMAGE,
                TensorRecipe(name="noise", shape=(1, 3, "H", "W"), dtype="float32"),
                TensorRecipe(name="noise_aug_strength", shape=(1,), dtype="float32"),
            ),
            outputs=(_IMAGE_LATENTS,),
        ),
        _MANY_STEPS,
        ComponentRecipe(
            name="vae_decoder",
            network=_VAE,
            config=_VAE_CONFIG,
            folder="vae",
            weights=_WEIGHTS,
            wrapper="mvsdk_export.networks.svd.graphs:DecoderGraph",
            inputs=(_LATENTS,),
            outputs=(_FRAMES,),
        ),
    ),
    schedulers={
        "edm_euler": None,
        "one_step": SchedulerVariant(denoiser=_ONE_STEP, steps=(1,), default_steps=1),
    },
    num_frames=14,
    height=256,
    width=512,
    fps=7,
    frame_range=(2, 25),
    size_multiple=64,  # eight of the autoencoder, three halvings of the denoiser
    size_range=(64, 1024),
    steps=(4, 25),
    default_steps=25,
    default_guidance=(1.0, 3.0),
    conditioning={"added_time_ids": (6.0, 127.0, 0.02)},  # fps - 1, motion bucket, noise added
    calibration_prompts=(
        "a rocket flying up on a blue background",
        "a cat walking right with a green background",
        "a racing car driving left on yellow",
        "a whale swimming down in front of pink",
    ),
    verification_prompts=(
        "a rocket flying left",
        "a dog running to the right on a green background",
    ),
    floors_db={
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
    },
    licences={
        "Apache-2.0": "the code of the networks",
        "LicenseRef-Stability-AI": "the weights, where they come from Stable Video Diffusion: the "
        "terms of its model card apply",
    },
    ships_weights=False,
    light_decoder=DecoderVariant(
        decoder=_LIGHT_DECODER,
        licences={
            "LicenseRef-Light-Decoder": "the weights of the light decoder: the terms of its own "
            "model card apply",
        },
    ),
)
