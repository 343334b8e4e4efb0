"""Tiny models of Stable Diffusion's layout with random weights, in folders as the public ones are.

diffusers and transformers of today write other names than those of the files that people have; what
differs is put back here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_svd import quiet

UNET = {
    "block_out_channels": (32, 32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "sample_size": 8,
}
"""Of `UNet2DConditionModel`."""
VAE = {
    "block_out_channels": (8, 16, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
"""Of `AutoencoderKL`; eight pixels a latent."""
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
"""Of `CLIPTextConfig`, but for the vocabulary."""
MOTION = {
    "block_out_channels": UNET["block_out_channels"],
    "motion_layers_per_block": 1,
    "motion_norm_num_groups": UNET["norm_num_groups"],
}
"""Of `MotionAdapter`."""
PNDM = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
"""scheduler_config.json of Stable Diffusion 1.5."""


def randomize_(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fill all weights, those that begin as zero too, so that every layer counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(noise / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
    return network.eval()


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Return tokens and merges of a CLIP vocabulary of every byte and few words."""
    from mvsdk.tokenizers.clip_bpe import BYTE_LETTERS

    letters = sorted(BYTE_LETTERS.values())
    merges = ["r o", "ro c", "k e", "c a", "ca t</w>", "d o", "do g</w>"]
    pieces = [merge.replace(" ", "") for merge in merges]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *pieces]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}, merges


def write_tokenizer(folder: Path) -> int:
    """Write a tokenizer's folder; return the number of tokens."""
    numbers, merges = vocabulary()
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(numbers), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    special = {"bos_token": {"content": "<|startoftext|>"}, "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special), "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": "<|endoftext|>", "model_max_length": 77}), "utf-8"
    )
    return len(numbers)


def build_parts(**unet: Any) -> dict[str, Any]:
    """Return the networks of a pipeline: unet, vae, text_encoder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    size = len(vocabulary()[0])
    with quiet():
        return {
            "unet": randomize_(UNet2DConditionModel(**{**UNET, **unet}), 1),
            "vae": randomize_(AutoencoderKL(**VAE), 2),
            "text_encoder": randomize_(CLIPTextModel(CLIPTextConfig(vocab_size=size, **TEXT)), 3),
        }


def build_motion(**fields: Any) -> Any:
    """Return motion modules for the denoiser of `build_parts`."""
    from diffusers import MotionAdapter

    with quiet():
        return randomize_(MotionAdapter(**{**MOTION, **fields}), 4)


def write_pipeline(folder: Path, *, old: bool = True, **unet: Any) -> dict[str, Any]:
    """Write a folder as Stable Diffusion 1.5 has it; return its networks.

    Args:
        folder: To write.
        old: With the names of 2022, or as diffusers and transformers of today write them.
        **unet: Fields of the denoiser that are not `UNET`.
    """
    parts = build_parts(**unet)
    folder.mkdir(parents=True)
    for name, network in parts.items():
        network.save_pretrained(folder / name)
    size = write_tokenizer(folder / "tokenizer")
    assert parts["text_encoder"].config.vocab_size == size
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(PNDM), "utf-8")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    if old:
        _make_old(folder)
    return parts


def _make_old(folder: Path) -> None:
    """Give files the names, and configurations the keys, that they had in 2022."""
    vae = folder / "vae/diffusion_pytorch_model.safetensors"
    olden = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(vae).items():
        for new, old in olden.items():
            name = name.replace(f".{new}.", f".{old}.")
        tensors[name] = tensor
    save_file(tensors, vae)
    text = folder / "text_encoder/model.safetensors"
    tensors = {
        name if name.startswith("text_model.") else f"text_model.{name}": tensor
        for name, tensor in load_file(text).items()
    }
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, text)
    for name, gone in (
        ("vae", ("scaling_factor", "shift_factor", "latents_mean", "use_quant_conv")),
    ):
        file = folder / name / "config.json"
        config = {key: x for key, x in json.loads(file.read_text()).items() if key not in gone}
        file.write_text(json.dumps(config), "utf-8")


def write_motion(folder: Path, **fields: Any) -> Any:
    """Write a motion adapter's folder; return it."""
    motion = build_motion(**fields)
    motion.save_pretrained(folder)
    return motion


def single_file(folder: Path, file: Path) -> Path:
    """Copy the weights of an adapter's folder to a file that stands alone."""
    shutil.copy(folder / "diffusion_pytorch_model.safetensors", file)
    return file
