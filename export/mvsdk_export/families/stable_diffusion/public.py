"""Public folders of Stable Diffusion 1.x and 2.x, of what is added to them, and of a light decoder.

    model_index.json                 StableDiffusionPipeline
    unet/ vae/ text_encoder/         config.json, weights
    tokenizer/                       vocab.json and merges.txt, or tokenizer.json
    scheduler/scheduler_config.json  of any class: its betas are used, the sampler is chosen

A motion adapter is a folder of config.json and weights, or its weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mvsdk_export.families.public import (
    CLIP_UNUSED,
    DIFFUSERS_UNUSED,
    PublicConfig,
    PublicModel,
    Values,
)

_ATTENTION_BLOCKS = {
    "down_block_types": {"CrossAttnDownBlock2D": True, "DownBlock2D": False},
    "up_block_types": {"CrossAttnUpBlock2D": True, "UpBlock2D": False},
}
"""Key -> name of a block -> whether it has attention."""

_BLOCKS: Mapping[str, object] = {
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
}
_LEVELS_MOST = 8


def _levels(document: Values) -> int:
    widths = document.values.get("block_out_channels", _BLOCKS["block_out_channels"])
    if not isinstance(widths, list) or not 1 <= len(cast("list[object]", widths)) <= _LEVELS_MOST:
        document.fail("block_out_channels", f"a list of 1 to {_LEVELS_MOST} widths")
    return len(cast("list[object]", widths))


def _per_level(document: Values, key: str, default: object, kind: type = int) -> list[object]:
    """Return the values of a key that has one, or one for each level."""
    levels, value = _levels(document), document.values.get(key)
    if value is None:
        value = default
    values = cast("list[object]", value) if isinstance(value, list) else [value] * levels
    if len(values) != levels or any(type(item) is not kind for item in values):
        what = "true or false" if kind is bool else "a number"
        document.fail(key, f"{what}, or one for each of {levels} levels")
    return values


def _attention(document: Values, key: str) -> list[object]:
    """Return which of the blocks have attention."""
    known, levels = _ATTENTION_BLOCKS[key], _levels(document)
    value = document.values.get(key, _BLOCKS[key])
    names = cast("list[object]", value) if isinstance(value, list) else []
    if len(names) != levels or any(name not in known for name in names):
        document.fail(key, f"{levels} of {', '.join(known)}")
    return [known[cast("str", name)] for name in names]


def _read_unet(document: Values) -> Mapping[str, object]:
    """Return what blocks a denoiser has, level by level, the finest first."""
    middle = document.values.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if middle not in (None, "UNetMidBlock2DCrossAttn"):
        document.fail("mid_block_type", "null or UNetMidBlock2DCrossAttn")
    # Public files call the number of heads the width of one.
    heads = "num_attention_heads"
    if document.values.get(heads) is None:
        heads = "attention_head_dim"
    only_cross = document.values.get("only_cross_attention", False)
    mid_only_cross = document.values.get("mid_block_only_cross_attention")
    if mid_only_cross is None:
        mid_only_cross = only_cross is True
    if type(mid_only_cross) is not bool:
        document.fail("mid_block_only_cross_attention", "null, true or false")
    classes = document.values.get("num_class_embeds")
    size = document.values.get("sample_size")
    if isinstance(size, list):  # height and width
        size = next(iter(cast("list[object]", size)), None)
    return {
        "sample_size": 64 if size is None else size,
        "layers_per_block": _per_level(document, "layers_per_block", 2),
        "down_attention": _attention(document, "down_block_types"),
        "up_attention": _attention(document, "up_block_types")[::-1],
        "mid_block": middle is not None,
        "attention_heads": _per_level(document, heads, 8),
        "only_cross_attention": _per_level(document, "only_cross_attention", False, bool),
        "mid_block_only_cross_attention": mid_only_cross,
        "transformer_layers_per_block": _per_level(document, "transformer_layers_per_block", 1),
        "num_class_embeds": 0 if classes is None else classes,
        # What temporal layers there are, their own folder says; no level has any without.
        "motion_heads": [1] * _levels(document),
        "motion_transformer_layers": [1] * _levels(document),
    }


UNET = PublicConfig(
    classes={"_class_name": "UNet2DConditionModel"},
    fields={
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1280,
        "use_linear_projection": False,
        "norm_groups": 32,
        "norm_eps": 1e-5,
    },
    names={"norm_groups": "norm_num_groups"},
    further=(
        *(
            "sample_size",
            "attention_head_dim",
            "num_attention_heads",
            "down_block_types",
            "up_block_types",
        ),
        *("layers_per_block", "mid_block_type", "only_cross_attention", "num_class_embeds"),
        *("mid_block_only_cross_attention", "transformer_layers_per_block"),
    ),
    read=_read_unet,
    fixed={
        "act_fn": "silu",
        "addition_embed_type": None,
        "addition_time_embed_dim": None,
        "attention_type": "default",
        "center_input_sample": False,
        "class_embed_type": None,
        "class_embeddings_concat": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": None,
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "projection_class_embeddings_input_dim": None,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "reverse_transformer_layers_per_block": None,
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
    },
    required=("_class_name",),
    unused=(
        *DIFFUSERS_UNUSED,
        "addition_embed_type_num_heads",
        "dropout",
        "upcast_attention",
    ),
)

VAE = PublicConfig(
    classes={"_class_name": "AutoencoderKL"},
    fields={
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [64],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_groups": 32,
        "scaling_factor": 0.18215,  # absent in files of Stable Diffusion 1.x
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "mid_block_add_attention": True,
    },
    names={"norm_groups": "norm_num_groups"},
    further=("down_block_types", "up_block_types"),
    read=lambda document: _check_vae_blocks(document),
    fixed={
        "act_fn": "silu",
        "latents_mean": None,
        "latents_std": None,
        "shift_factor": None,
    },
    required=("_class_name", "block_out_channels"),
    unused=(*DIFFUSERS_UNUSED, "force_upcast", "sample_size"),
)


def _check_vae_blocks(document: Values) -> Mapping[str, object]:
    levels = _levels(document)
    for key, name in (
        ("down_block_types", "DownEncoderBlock2D"),
        ("up_block_types", "UpDecoderBlock2D"),
    ):
        if document.values.get(key, [name] * levels) != [name] * levels:
            document.fail(key, f"{levels} times {name}")
    return {}


TEXT_ENCODER = PublicConfig(
    classes={"model_type": "clip_text_model"},
    fields={
        "vocabulary_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    },
    names={"vocabulary_size": "vocab_size"},
    further=("architectures",),
    read=lambda document: _check_text_class(document),
    fixed={"layer_norm_eps": 1e-5},
    required=("model_type",),
    unused=(
        *CLIP_UNUSED,
        *("bos_token_id", "eos_token_id", "pad_token_id", "projection_dim"),
    ),
)


def _check_text_class(document: Values) -> Mapping[str, object]:
    known = (None, ["CLIPTextModel"], ["CLIPTextModelWithProjection"])
    if document.values.get("architectures") not in known:
        document.fail("architectures", "CLIPTextModel or CLIPTextModelWithProjection")
    return {}


MOTION_ADAPTER = PublicConfig(
    classes={"_class_name": "MotionAdapter"},
    fields={},
    further=(
        *("block_out_channels", "motion_layers_per_block", "motion_num_attention_heads"),
        *("motion_transformer_layers_per_block", "motion_mid_block_layers_per_block"),
        *("motion_transformer_layers_per_mid_block", "motion_norm_num_groups"),
        *("motion_max_seq_length", "use_motion_mid_block"),
    ),
    fixed={"conv_in_channels": None},
    required=("_class_name",),
    unused=DIFFUSERS_UNUSED,
)
"""config.json of motion modules; without one, what the library has by default."""


def rename_text_encoder(name: str) -> str | None:
    """Return what our text encoder calls a tensor of a public file; None for what it has not.

    transformers wrote `text_model.` before every name up to its version 4, and numbers of
    positions beside the weights.
    """
    if name.endswith("embeddings.position_ids") or name.startswith("text_projection."):
        return None
    return name if name.startswith("text_model.") else f"text_model.{name}"


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def rename_vae(name: str) -> str | None:
    """Return what our autoencoder calls a tensor of a public file: attention had other names."""
    parts = name.split(".")
    if len(parts) > 2 and "attentions" in parts:
        parts[-2] = _OLD_ATTENTION.get(parts[-2], parts[-2])
    return ".".join(parts)


def rename_unet(name: str) -> str | None:
    """Return what our denoiser calls a tensor of a public file; None for what it computes."""
    return None if name.endswith("pos_embed.pe") else name


_SCHEDULERS = (
    *("PNDMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler"),
    *("UniPCMultistepScheduler", "DEISMultistepScheduler", "HeunDiscreteScheduler"),
    *("DDPMScheduler", "TCDScheduler", "DPMSolverSinglestepScheduler", "KDPM2DiscreteScheduler"),
)

STABLE_DIFFUSION_PUBLIC = PublicModel(
    pipelines=(
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "LatentConsistencyModelPipeline",
    ),
    parts={
        "scheduler": tuple(("diffusers", name) for name in _SCHEDULERS),
        "text_encoder": (
            ("transformers", "CLIPTextModel"),
            ("transformers", "CLIPTextModelWithProjection"),
        ),
        "tokenizer": (("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast")),
        "unet": (("diffusers", "UNet2DConditionModel"),),
        "vae": (("diffusers", "AutoencoderKL"),),
    },
    ignored=("safety_checker", "feature_extractor", "image_encoder"),
    configs={"unet": UNET, "vae": VAE, "text_encoder": TEXT_ENCODER},
    scheduler="discrete",
)

LIGHT_DECODER_PUBLIC = PublicConfig(
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
)
"""config.json of a light decoder."""
