"""stable_diffusion: what people have, with motion modules, LoRAs and few-step samplers."""

from __future__ import annotations

from dataclasses import replace

from mvsdk_export.families.recipe import (
    ComponentRecipe,
    DecoderVariant,
    MotionRecipe,
    Recipe,
    TensorRecipe,
    even_floors,
)
from mvsdk_export.families.stable_diffusion.public import (
    LIGHT_DECODER_PUBLIC,
    MOTION_ADAPTER,
    STABLE_DIFFUSION_PUBLIC,
)

_HERE = "mvsdk_export.families.stable_diffusion"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_TEXT = TensorRecipe(name="encoder_hidden_states", shape=(1, "L", "D"), dtype="float32")
_SAMPLE = TensorRecipe(name="sample", shape=("F", "C", "h", "w"), dtype="float32")
_LATENTS = TensorRecipe(name="latents", shape=("f", "C", "h", "w"), dtype="float32")
_FRAMES = TensorRecipe(name="frames", shape=("f", "H", "W", 3), dtype="uint8")

TEXT_ENCODER = ComponentRecipe(
    name="text_encoder",
    role="text_encoder",
    network=f"{_HERE}.text_encoder:ClipTextEncoder",
    config=f"{_HERE}.text_encoder:ClipTextConfig",
    folder="text_encoder",
    weights="model.safetensors",
    rename_weights=f"{_HERE}.public:rename_text_encoder",
    inputs=(TensorRecipe(name="input_ids", shape=(1, "L"), dtype="int32"),),
    outputs=(_TEXT,),
)
DENOISER = ComponentRecipe(
    name="unet",
    role="denoiser",
    network=f"{_HERE}.unet:UNet",
    config=f"{_HERE}.config:UNetConfig",
    folder="unet",
    weights=_WEIGHTS,
    rename_weights=f"{_HERE}.public:rename_unet",
    inputs=(_SAMPLE, TensorRecipe(name="timestep", shape=(1,), dtype="float32"), _TEXT),
    outputs=(TensorRecipe(name="model_output", shape=_SAMPLE.shape, dtype="float32"),),
)
VAE_DECODER = ComponentRecipe(
    name="vae_decoder",
    role="vae_decoder",
    network=f"{_HERE}.vae:AutoencoderKL",
    config=f"{_HERE}.vae:AutoencoderKLConfig",
    folder="vae",
    weights=_WEIGHTS,
    rename_weights=f"{_HERE}.public:rename_vae",
    wrapper=f"{_HERE}.graphs:DecoderGraph",
    inputs=(_LATENTS,),
    outputs=(_FRAMES,),
)
LIGHT_DECODER = DecoderVariant(
    decoder=replace(
        VAE_DECODER,
        network=f"{_HERE}.light_decoder:LightDecoder",
        config=f"{_HERE}.light_decoder:LightDecoderConfig",
        folder="decoder",
        rename_weights=None,
        wrapper=f"{_HERE}.light_decoder:LightDecoderGraph",
        unused_weights=("encoder.",),
    ),
    licences={
        "LicenseRef-Light-Decoder": "the weights of the light decoder: the terms of its own model "
        "card apply",
    },
    public=LIGHT_DECODER_PUBLIC,
)
"""For the latents of all models that have this autoencoder, Stable Video Diffusion too."""

STABLE_DIFFUSION = Recipe(
    name="stable_diffusion",
    task="text_to_video",
    components=(TEXT_ENCODER, DENOISER, VAE_DECODER),
    schedulers={"discrete": None},
    num_frames=1,
    height=512,
    width=512,
    fps=8,
    frame_range=(1, 32),
    size_multiple=64,  # eight of the autoencoder, three halvings of the denoiser
    size_range=(64, 1024),
    steps=(4,),
    default_steps=4,
    calibration_prompts=(
        "a rocket flying up on a blue background",
        "a cat walking right with a green background",
        "a photo of a racing car on a road at night",
        "a whale swimming in the sea, close up",
    ),
    verification_prompts=(
        "a rocket flying left",
        "a dog running to the right on a green background",
    ),
    floors_db={
        **even_floors("text_encoder", "unet", "vae_decoder"),
        "fp32": {"text_encoder": 80.0, "unet": 80.0, "vae_decoder": 55.0, "end_to_end": 50.0},
        "fp16": {"text_encoder": 45.0, "unet": 45.0, "vae_decoder": 45.0, "end_to_end": 40.0},
        "w8a16": {"text_encoder": 25.0, "unet": 22.0, "vae_decoder": 35.0, "end_to_end": 30.0},
    },
    licences={
        "Apache-2.0": "the code of the networks",
        "LicenseRef-Checkpoint": "the weights: the terms of the model cards of the checkpoint, and "
        "of the motion modules and LoRAs put beside it, apply",
    },
    ships_weights=False,
    public=STABLE_DIFFUSION_PUBLIC,
    motion=MotionRecipe(
        component="unet",
        folder="motion",
        public=MOTION_ADAPTER,
        read=f"{_HERE}.motion_config:read_motion",
    ),
    decodes_frames_apart=True,
    tokenizer="clip_bpe",
    guidance="text",
    light_decoder=LIGHT_DECODER,
    pipeline=f"{_HERE}.program:make_pipeline",
)
