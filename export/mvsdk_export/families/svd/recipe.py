"""mobilevd: a picture comes alive, with Stable Video Diffusion made small enough for a phone.

Checkpoints are public ones of Stable Video Diffusion (14 or 25 frames), and what
`mvsdk compress` makes of them.
"""

from __future__ import annotations

from mvsdk_export.families.recipe import Recipe, SchedulerVariant
from mvsdk_export.families.stable_diffusion.recipe import LIGHT_DECODER
from mvsdk_export.families.svd.components import (
    DENOISER,
    FLOORS_DB,
    IMAGE_ENCODER,
    ONE_STEP_DENOISER,
    vae_components,
)
from mvsdk_export.families.svd.public import SVD_PUBLIC

_VAE_ENCODER, _VAE_DECODER = vae_components(
    "mvsdk_export.families.svd.vae:TemporalAutoencoder",
    "mvsdk_export.families.svd.vae:TemporalAutoencoderConfig",
    "mvsdk_export.families.svd.graphs:DecoderGraph",
)
MOBILEVD = Recipe(
    name="mobilevd",
    task="image_to_video",
    components=(IMAGE_ENCODER, _VAE_ENCODER, DENOISER, _VAE_DECODER),
    schedulers={
        "edm_euler": None,
        "one_step": SchedulerVariant(denoiser=ONE_STEP_DENOISER, steps=(1,), default_steps=1),
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
    floors_db=FLOORS_DB,
    licences={
        "Apache-2.0": "the code of the networks",
        "LicenseRef-Stability-AI": "the weights, where they come from Stable Video Diffusion: the "
        "terms of its model card apply",
    },
    ships_weights=False,
    public=SVD_PUBLIC,
    light_decoder=LIGHT_DECODER,
)
