"""sticker: animated stickers from a text prompt, the SDK's own small model."""

from __future__ import annotations

from mvsdk_export.families.recipe import ComponentRecipe, Recipe, TensorRecipe, even_floors

_LATENTS = ("F", "C", "h", "w")
_FEATURES = TensorRecipe(name="encoder_hidden_states", shape=(1, "S", "D"), dtype="float32")

STICKER = Recipe(
    name="sticker",
    task="text_to_video",
    components=(
        ComponentRecipe(
            name="text_encoder",
            role="text_encoder",
            network="mvsdk_export.families.sticker.text_encoder:TextEncoder",
            config="mvsdk_export.families.sticker.text_encoder:TextEncoderConfig",
            folder="text_encoder",
            weights="model.safetensors",
            inputs=(TensorRecipe(name="input_ids", shape=(1, "L"), dtype="int32"),),
            outputs=(_FEATURES,),
        ),
        ComponentRecipe(
            name="transformer",
            role="denoiser",
            network="mvsdk_export.families.sticker.transformer:SpatioTemporalTransformer",
            config="mvsdk_export.families.sticker.transformer:TransformerConfig",
            folder="transformer",
            weights="diffusion_pytorch_model.safetensors",
            inputs=(
                TensorRecipe(name="sample", shape=_LATENTS, dtype="float32"),
                TensorRecipe(name="timestep", shape=(1,), dtype="float32"),
                _FEATURES,
            ),
            outputs=(TensorRecipe(name="model_output", shape=_LATENTS, dtype="float32"),),
        ),
        ComponentRecipe(
            name="vae_decoder",
            role="vae_decoder",
            network="mvsdk_export.families.autoencoder:Autoencoder",
            config="mvsdk_export.families.autoencoder:AutoencoderConfig",
            folder="vae",
            weights="diffusion_pytorch_model.safetensors",
            wrapper="mvsdk_export.families.autoencoder:FrameDecoder",
            inputs=(TensorRecipe(name="latents", shape=("f", "C", "h", "w"), dtype="float32"),),
            outputs=(TensorRecipe(name="frames", shape=("f", "H", "W", 3), dtype="uint8"),),
        ),
    ),
    schedulers={"flow_euler": None, "flow_consistency": None},
    num_frames=8,
    height=64,
    width=64,
    fps=8,
    frame_range=(8, 8),  # the memory holds pictures of eight frames
    size_multiple=16,
    size_range=(32, 128),
    steps=(1, 2, 4),
    default_steps=4,
    calibration_prompts=(
        "a rocket flying up on a blue background",
        "a cat walking right with a green background",
        "a racing car driving left on yellow",
        "a whale swimming down in front of pink",
        "dragon",
        "a red balloon rising on white",
        "the horse galloping to the left on purple",
        "a helicopter on a black background",
        "a penguin moving right on orange",
        "a train going left on gray",
        "a ghost standing still on a red background",
        "a bee flying right",
        "a star spinning on blue",
        "a turtle crawling to the right on green",
        "a robot flipping in front of white",
        "an octopus zooming in on a yellow background",
        "a bus getting smaller on a purple background",
        "a tiny yacht going right on black",
        "a plane flying up with a pink background",
        "a huge puppy running left on orange",
        "an elephant turning around in front of gray",
        "a fish and a crab on red",
        "a duck next to a pizza on green",
        "a heart moving down on yellow",
        "a thinking face rotating on white",
        "a snowman growing in front of black",
        "a big panda spinning",
        "a small guitar on pink",
        "a crown beside a gem stone on purple",
        "a dinosaur shrinking on orange",
        "an umbrella coming closer on gray",
        "a soccer ball doing flips on green",
    ),
    verification_prompts=(
        "a rocket flying left",
        "a dog running to the right on a green background",
        "a big octopus spinning on blue",
        "a pizza and a robot on yellow",
    ),
    floors_db={
        **even_floors("text_encoder", "transformer", "vae_decoder"),
        "fp32": {
            "text_encoder": 80.0,
            "transformer": 80.0,
            "vae_decoder": 55.0,
            "end_to_end": 50.0,
        },
        "fp16": {
            "text_encoder": 45.0,
            "transformer": 45.0,
            "vae_decoder": 45.0,
            "end_to_end": 45.0,
        },
        "w8a16": {
            "text_encoder": 35.0,
            # Latents are whitened: errors of faint detail count as much as those of colour. What
            # has 35 dB in latents on the emulator has 50 dB in frames.
            "transformer": 30.0,
            "vae_decoder": 35.0,
            "end_to_end": 40.0,
        },
    },
    licences={
        "Apache-2.0": "networks, weights and text features distilled from all-MiniLM-L6-v2",
        "MIT": "Fluent animated emoji (Microsoft), the clips that the model was trained on",
    },
)
