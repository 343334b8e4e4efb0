"""animator: a sticker comes alive, the SDK's own small image-to-video model.

A member of the family of Stable Video Diffusion, made small step by step as MobileVD was, over the
latents of sticker's autoencoder. One evaluation makes a clip.
"""

from __future__ import annotations

from mvsdk_export.recipes.spec import ComponentRecipe, Recipe, TensorRecipe

_IMAGE = TensorRecipe(name="image", shape=(1, "H", "W", 3), dtype="uint8")
_FEATURES = TensorRecipe(name="encoder_hidden_states", shape=(1, 1, "D"), dtype="float32")
_IMAGE_LATENTS = TensorRecipe(name="image_latents", shape=(1, "C", "h", "w"), dtype="float32")
_LATENTS = ("F", "C", "h", "w")

_VAE = "mvsdk_export.networks.vae:Autoencoder"
_VAE_CONFIG = "mvsdk_export.networks.vae:AutoencoderConfig"
_WEIGHTS = "diffusion_pytorch_model.safetensors"

ANIMATOR = Recipe(
    name="animator",
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
        ComponentRecipe(
            name="unet",
            network="mvsdk_export.networks.svd.unet:SVDUNet",
            config="mvsdk_export.networks.svd.unet:SVDUNetConfig",
            folder="unet",
            weights=_WEIGHTS,
            wrapper="mvsdk_export.networks.svd.graphs:OneStepGraph",
            wrapper_options=("sigma",),
            inputs=(
                TensorRecipe(name="sample", shape=_LATENTS, dtype="float32"),
                _FEATURES,
                _IMAGE_LATENTS,
                TensorRecipe(name="added_time_ids", shape=(1, 3), dtype="float32"),
            ),
            outputs=(TensorRecipe(name="model_output", shape=_LATENTS, dtype="float32"),),
        ),
        ComponentRecipe(
            name="vae_decoder",
            network=_VAE,
            config=_VAE_CONFIG,
            folder="vae",
            weights=_WEIGHTS,
            wrapper="mvsdk_export.networks.vae:FrameDecoder",
            inputs=(TensorRecipe(name="latents", shape=("f", "C", "h", "w"), dtype="float32"),),
            outputs=(TensorRecipe(name="frames", shape=("f", "H", "W", 3), dtype="uint8"),),
        ),
    ),
    schedulers={"one_step": None},
    num_frames=8,
    height=64,
    width=64,
    fps=8,
    frame_range=(8, 8),
    size_multiple=8,
    size_range=(64, 64),
    steps=(1,),
    default_steps=1,
    conditioning={"added_time_ids": (7.0, 127.0, 0.02)},  # fps - 1, motion bucket, noise added
    calibration_prompts=(
        "a rocket on a blue background",
        "a cat walking right with a green background",
        "a racing car driving left on yellow",
        "a whale in front of pink",
        "a dragon on orange",
        "a red balloon on white",
        "the horse galloping to the left on purple",
        "a helicopter on a black background",
        "a penguin on orange",
        "a train going left on gray",
        "a ghost standing still on a red background",
        "a bee flying right on green",
        "a star on blue",
        "a turtle crawling to the right on green",
        "a robot in front of white",
        "an octopus on a yellow background",
    ),
    verification_prompts=(
        "a motorcycle on pink",
        "a dog running to the right on a green background",
        "a pizza on yellow",
        "a bird flying left on purple",
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
        "Apache-2.0": "networks and weights",
        "MIT": "Fluent animated emoji (Microsoft), the clips that the model was trained on",
    },
    ships_weights=False,
)
