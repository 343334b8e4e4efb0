"""Public folders of Stable Video Diffusion and of its light decoder, as diffusers writes them.

    model_index.json                            StableVideoDiffusionPipeline
    unet/ vae/ image_encoder/                   config.json, weights
    scheduler/scheduler_config.json             read by scheduler.py
    feature_extractor/preprocessor_config.json  how the image encoder wants its pictures

The folder of a light decoder holds one network, so config.json and weights lie in it directly.
A key either is a field of ours of the same name, or has the one value that our networks implement,
or changes nothing when clips are made. Every other key is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mvsdk_export.checkpoints.building import resolve, with_frames
from mvsdk_export.checkpoints.configs import parse_config
from mvsdk_export.checkpoints.documents import Document
from mvsdk_export.recipes import ComponentRecipe, Recipe

CLASS_NAME = "StableVideoDiffusionPipeline"
RECIPE = "mobilevd"
PREPROCESSOR_FILE = "feature_extractor/preprocessor_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicConfig:
    """What the keys of a public config.json mean."""

    fields: tuple[str, ...]
    """Fields of our configuration."""
    fixed: Mapping[str, object]
    """Key -> the one value that our network implements."""
    unused: tuple[str, ...]
    """Keys that change nothing: sizes of training pictures, dropout, who wrote the file."""
    absent: Mapping[str, object] = field(default_factory=dict)
    """Keys that older files lack -> as `fixed`."""


PUBLIC_CONFIGS: dict[str, PublicConfig] = {
    "unet": PublicConfig(
        fields=(
            "in_channels",
            "out_channels",
            "block_out_channels",
            "layers_per_block",
            "num_attention_heads",
            "cross_attention_dim",
            "transformer_layers_per_block",
            "addition_time_embed_dim",
            "projection_class_embeddings_input_dim",
            "num_frames",
        ),
        fixed={
            "_class_name": "UNetSpatioTemporalConditionModel",
            "down_block_types": [
                "CrossAttnDownBlockSpatioTemporal",
                "CrossAttnDownBlockSpatioTemporal",
                "CrossAttnDownBlockSpatioTemporal",
                "DownBlockSpatioTemporal",
            ],
            "up_block_types": [
                "UpBlockSpatioTemporal",
                "CrossAttnUpBlockSpatioTemporal",
                "CrossAttnUpBlockSpatioTemporal",
                "CrossAttnUpBlockSpatioTemporal",
            ],
        },
        unused=("_diffusers_version", "_name_or_path", "sample_size"),
    ),
    "vae": PublicConfig(
        fields=(
            "in_channels",
            "out_channels",
            "block_out_channels",
            "layers_per_block",
            "latent_channels",
            "scaling_factor",
        ),
        fixed={
            "_class_name": "AutoencoderKLTemporalDecoder",
            "down_block_types": ["DownEncoderBlock2D"] * 4,
        },
        unused=("_diffusers_version", "_name_or_path", "force_upcast", "sample_size"),
    ),
    "image_encoder": PublicConfig(
        fields=(
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "image_size",
            "patch_size",
            "projection_dim",
            "hidden_act",
        ),
        fixed={
            "architectures": ["CLIPVisionModelWithProjection"],
            "model_type": "clip_vision_model",
            "num_channels": 3,
            "layer_norm_eps": 1e-5,
        },
        unused=(
            "_name_or_path",
            "attention_dropout",
            "dropout",
            "dtype",
            "initializer_factor",
            "initializer_range",
            "torch_dtype",
            "transformers_version",
        ),
    ),
    "decoder": PublicConfig(
        fields=("latent_channels", "decoder_block_out_channels", "num_decoder_blocks"),
        fixed={
            "_class_name": "AutoencoderTiny",
            "act_fn": "relu",
            "out_channels": 3,
            "upsampling_scaling_factor": 2,
        },
        unused=(
            "_diffusers_version",
            "_name_or_path",
            "block_out_channels",
            "encoder_block_out_channels",
            "force_upcast",
            "in_channels",
            "latent_magnitude",
            "latent_shift",
            "num_encoder_blocks",
        ),
        absent={"scaling_factor": 1.0, "shift_factor": 0.0, "upsample_fn": "nearest"},
    ),
}
"""Subfolder, as recipes call it -> meaning of its config.json."""

_PARTS: dict[str, object] = {
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}
_PREPROCESSOR: dict[str, object] = {
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""What of it is used: pictures are resized by the pipeline itself."""


def read_public_index(document: Document) -> str:
    """Check model_index.json; return the name of the recipe.

    Raises:
        CheckpointError: If the pipeline has other parts than Stable Video Diffusion.
    """
    document.check_keys(
        ("_class_name", *_PARTS, "feature_extractor"), ("_diffusers_version", "_name_or_path")
    )
    document.check_fixed(_PARTS)
    return RECIPE


def check_preprocessor(document: Document) -> None:
    """Check that pictures are normalised as the graph of the image encoder does it.

    Raises:
        CheckpointError: If not.
    """
    for key in _PREPROCESSOR:
        if key not in document.values:
            document.fail(key, "what CLIP has")
    document.check_fixed(_PREPROCESSOR)


def parse_public_configs(documents: Mapping[str, Document], recipe: Recipe) -> dict[str, Any]:
    """Build the configurations of all components.

    Args:
        documents: Subfolder -> its config.json.
        recipe: Of `RECIPE`.

    Returns:
        Component name -> configuration dataclass of its network. The autoencoder decodes clips of
        the length that the denoiser makes: its own file names none.

    Raises:
        CheckpointError: With the first key that is unknown, missing, or of a wrong value.
    """
    configs = {
        part.name: parse_public_config(documents[part.folder], part) for part in recipe.components
    }
    num_frames = configs[recipe.denoiser].num_frames
    return {name: with_frames(config, num_frames) for name, config in configs.items()}


def parse_public_config(document: Document, part: ComponentRecipe) -> Any:
    """Build the configuration of one component from its public config.json.

    Raises:
        CheckpointError: As `parse_public_configs`.
    """
    public = PUBLIC_CONFIGS[part.folder]
    document.check_fixed({**public.fixed, **public.absent})  # first: another class has other keys
    document.check_keys((*public.fixed, *public.fields), (*public.absent, *public.unused))
    values = {key: document.values[key] for key in public.fields}
    return parse_config(Document(document.path, values), resolve(part.config))
