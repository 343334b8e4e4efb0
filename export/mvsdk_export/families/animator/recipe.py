"""animator: a sticker comes alive, the SDK's own small image-to-video model.

A member of the family of Stable Video Diffusion, made small step by step as MobileVD was, over the
latents of sticker's autoencoder. One evaluation makes a clip.
"""

from __future__ import annotations

from mvsdk_export.families.recipe import Recipe
from mvsdk_export.families.svd.components import (
    FLOORS_DB,
    IMAGE_ENCODER,
    ONE_STEP_DENOISER,
    vae_components,
)

_VAE_ENCODER, _VAE_DECODER = vae_components(
    "mvsdk_export.families.autoencoder:Autoencoder",
    "mvsdk_export.families.autoencoder:AutoencoderConfig",
    "mvsdk_export.families.autoencoder:FrameDecoder",
)

ANIMATOR = Recipe(
    name="animator",
    task="image_to_video",
    components=(IMAGE_ENCODER, _VAE_ENCODER, ONE_STEP_DENOISER, _VAE_DECODER),
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
    floors_db=FLOORS_DB,
    licences={
        "Apache-2.0": "networks and weights",
        "MIT": "Fluent animated emoji (Microsoft), the clips that the model was trained on",
    },
)
