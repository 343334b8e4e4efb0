"""Public folders of Stable Video Diffusion.

model_index.json                            StableVideoDiffusionPipeline
unet/ vae/ image_encoder/                   config.json, weights
scheduler/scheduler_config.json             an EulerDiscreteScheduler
feature_extractor/preprocessor_config.json  how the image encoder wants its pictures
"""

from __future__ import annotations

from mvsdk_export.families.public import (
    CLIP_UNUSED,
    DIFFUSERS_UNUSED,
    PublicConfig,
    PublicModel,
)

_CONFIGS = {
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
        unused=CLIP_UNUSED,
    ),
}
"""Subfolder -> meaning of its config.json."""

SVD_PUBLIC = PublicModel(
    pipelines=("StableVideoDiffusionPipeline",),
    parts={
        "image_encoder": (("transformers", "CLIPVisionModelWithProjection"),),
        "scheduler": (("diffusers", "EulerDiscreteScheduler"),),
        "unet": (("diffusers", "UNetSpatioTemporalConditionModel"),),
        "vae": (("diffusers", "AutoencoderKLTemporalDecoder"),),
    },
    ignored=("feature_extractor",),
    configs=_CONFIGS,
    documents={
        # What of it is used: pictures are resized by the pipeline itself.
        "feature_extractor/preprocessor_config.json": {
            "do_normalize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        }
    },
    scheduler="continuous_edm",
)
