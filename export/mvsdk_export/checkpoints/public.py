"""Public folders of Stable Video Diffusion and of its light decoder, as diffusers writes them.

    model_index.json                            StableVideoDiffusionPipeline
    unet/ vae/ image_encoder/                   config.json, weights
    scheduler/scheduler_config.json             read by scheduler.py
    feature_extractor/preprocessor_config.json  how the image encoder wants its pictures

The folder of a light decoder holds one network, so config.json and weights lie in it directly.
A key either is a field of ours of the same name, or has the one value that our networks implement,
or changes nothing when clips are made. Every other key is an error. Keys that are left out have the
defaults of the library that reads the folder otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args, get_origin, get_type_hints

from mvsdk._text import quoted
from mvsdk_export.checkpoints.building import with_frames
from mvsdk_export.checkpoints.configs import parse_config
from mvsdk_export.checkpoints.documents import Document, unsupported
from mvsdk_export.families import ComponentRecipe, Recipe
from mvsdk_export.families.recipe import resolve

CLASS_NAME = "StableVideoDiffusionPipeline"
RECIPE = "mobilevd"
LEVELS = 4
"""Resolutions of every network that has several."""
PREPROCESSOR_FILE = "feature_extractor/preprocessor_config.json"


VARIANTS = ("fp16", "bf16")
"""Variants of weights that are read where the plain ones are missing."""

DIFFUSERS_UNUSED = (
    "_diffusers_version",
    "_name_or_path",
    # What training with a moving average of the weights notes beside them.
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
)
"""Keys of any network of diffusers that change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicConfig:
    """What the keys of a public config.json mean.

    A key that is left out has the value that the class has by default in its own library, which
    leaves out some when it writes, and had not all of them in its older versions.
    """

    classes: Mapping[str, object]
    """Key -> what it says of the class that the file is of."""
    fields: Mapping[str, object]
    """Field of our configuration -> its default in the library."""
    per_level: tuple[str, ...] = ()
    """Fields that are one number or one for each of the four levels, whichever ours is."""
    fixed: Mapping[str, object]
    """Key -> the one value that our network implements, also its default unless required."""
    required: tuple[str, ...]
    """Keys that may not be left out: without them it would be another network."""
    unused: tuple[str, ...]
    """Keys that change nothing: sizes of training pictures, dropout, who wrote the file."""


PUBLIC_CONFIGS: dict[str, PublicConfig] = {
    "unet": PublicConfig(
        classes={"_class_name": "UNetSpatioTemporalConditionModel"},
        fields={
            "in_channels": 8,
            "out_channels": 4,
            "block_out_channels": [320, 640, 1280, 1280],
            "layers_per_block": 2,
            "num_attention_heads": [5, 10, 20, 20],
            "cross_attention_dim": 1024,
            "transformer_layers_per_block": 1,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 768,
            "num_frames": 25,
        },
        per_level=(
            "layers_per_block",
            "num_attention_heads",
            "cross_attention_dim",
            "transformer_layers_per_block",
        ),
        fixed={
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
        required=("_class_name",),
        unused=(*DIFFUSERS_UNUSED, "sample_size"),
    ),
    "vae": PublicConfig(
        classes={"_class_name": "AutoencoderKLTemporalDecoder"},
        fields={
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": [64],
            "layers_per_block": 1,
            "latent_channels": 4,
            "scaling_factor": 0.18215,
        },
        fixed={"down_block_types": ["DownEncoderBlock2D"] * 4},
        required=("_class_name", "block_out_channels", "down_block_types"),
        unused=(*DIFFUSERS_UNUSED, "force_upcast", "sample_size"),
    ),
    "image_encoder": PublicConfig(
        classes={
            "architectures": ["CLIPVisionModelWithProjection"],
            "model_type": "clip_vision_model",
        },
        fields={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 32,
            "projection_dim": 512,
            "hidden_act": "quick_gelu",
        },
        fixed={"num_channels": 3, "layer_norm_eps": 1e-5},
        required=("model_type",),
        unused=(
            "_attn_implementation_autoset",
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
        classes={"_class_name": "AutoencoderTiny"},
        fields={
            "latent_channels": 4,
            "decoder_block_out_channels": [64, 64, 64, 64],
            "num_decoder_blocks": [3, 3, 3, 1],
        },
        fixed={
            "act_fn": "relu",
            "out_channels": 3,
            "scaling_factor": 1.0,
            "shift_factor": 0.0,
            "upsample_fn": "nearest",
            "upsampling_scaling_factor": 2,
        },
        required=("_class_name",),
        unused=(
            *DIFFUSERS_UNUSED,
            "block_out_channels",
            "encoder_block_out_channels",
            "force_upcast",
            "in_channels",
            "latent_magnitude",
            "latent_shift",
            "num_encoder_blocks",
        ),
    ),
}
"""Subfolder, as recipes call it -> meaning of its config.json."""

_PARTS: dict[str, tuple[str, str]] = {
    "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    "scheduler": ("diffusers", "EulerDiscreteScheduler"),
    "unet": ("diffusers", "UNetSpatioTemporalConditionModel"),
    "vae": ("diffusers", "AutoencoderKLTemporalDecoder"),
}
_INDEX_UNUSED = ("_diffusers_version", "_name_or_path", "requires_safety_checker")
"""Keys of model_index.json that change nothing. So do parts that are null: pipelines name those
that they can do without."""
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
    for part, supported in _PARTS.items():
        _check_part(document, part, supported)
    absent = [key for key, value in document.values.items() if value in (None, [None, None])]
    document.check_keys(("_class_name", *_PARTS, "feature_extractor"), (*_INDEX_UNUSED, *absent))
    return RECIPE


def _check_part(document: Document, part: str, supported: Sequence[str]) -> None:
    """Check the class of a part, which the index writes as its library and its name."""
    value = document.values.get(part, list(supported))
    if isinstance(value, list) and all(type(word) is str for word in cast("list[object]", value)):
        if value != list(supported):
            raise unsupported(f"{part} of {quoted(document.path)}", value, [list(supported)])
    else:
        document.fail(part, f"a library and a class, {' and '.join(supported)}")


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
    public, config_class = PUBLIC_CONFIGS[part.folder], resolve(part.config)
    for key, supported in public.classes.items():  # first: another class has other keys
        document.check_class(key, supported)
    document.check_fixed(public.fixed)
    known = (*public.classes, *public.fields, *public.fixed, *public.unused)
    document.check_keys(public.required, [key for key in known if key not in public.required])
    hints = get_type_hints(config_class)
    found = {**public.fields, **document.values}
    values = {
        key: _as_ours(found[key], hints[key], per_level=key in public.per_level)
        for key in public.fields
    }
    return parse_config(Document(document.path, values), config_class)


def _as_ours(value: object, hint: Any, *, per_level: bool) -> object:
    """Return a value as our files spell it.

    Whole numbers have no fraction. What a network may have one of, or one for each level, is what
    our field is; levels that differ where ours has one number are left as they are, an error.
    """
    items = cast("list[object]", value) if isinstance(value, list) else None
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if per_level and type(value) in (int, float):
            items = [value] * len(kinds)
        if items is None or len(items) != len(kinds):
            return value
        return [_as_ours(item, kinds[0], per_level=False) for item in items]
    if per_level and items is not None and len(items) == LEVELS and items.count(items[0]) == LEVELS:
        return _as_ours(items[0], hint, per_level=False)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value
