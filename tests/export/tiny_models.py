"""A model folder of a few hundred kilobytes, random but whole, for tests of the toolchain."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import nn

from mvsdk_export.checkpoints import FlowScheduler, ModelFolder, save_model_folder
from mvsdk_export.families import find_recipe
from mvsdk_export.families.autoencoder import Autoencoder, AutoencoderConfig
from mvsdk_export.families.sticker.text_encoder import TextEncoder, TextEncoderConfig
from mvsdk_export.families.sticker.transformer import SpatioTemporalTransformer, TransformerConfig

SCHEDULER = FlowScheduler(kind="flow_euler", prediction_type="sample")


def tiny_vocabulary() -> list[str]:
    """Return special tokens, letters, and the words of the recipe's prompts."""
    recipe = find_recipe("sticker")
    prompts = " ".join((*recipe.calibration_prompts, *recipe.verification_prompts))
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "-", ",", *letters, *(f"##{letter}" for letter in letters)]
    return list(dict.fromkeys(tokens + re.findall("[a-z]+", prompts)))


def tiny_networks(seed: int = 0) -> dict[str, nn.Module]:
    """Return small networks of the sticker recipe; no layer of them is zero."""
    torch.manual_seed(seed)
    networks: dict[str, nn.Module] = {
        "text_encoder": TextEncoder(
            TextEncoderConfig(
                vocabulary_size=len(tiny_vocabulary()),
                max_length=16,
                hidden_size=32,
                layers=1,
                heads=2,
                subjects=3,
                memory_tokens=5,
            )
        ),
        "transformer": SpatioTemporalTransformer(
            TransformerConfig(
                latent_channels=8,
                num_frames=8,
                width=32,
                layers=1,
                heads=2,
                context_dim=32,
                memory_slots=2,
                memory_tokens=5,
                picture_cells=4,
                picture_size=8,
                choices=2,
            )
        ),
        "vae_decoder": Autoencoder(
            AutoencoderConfig(latent_channels=8, decoder_channels=(32, 32, 16), decoder_layers=1)
        ),
    }
    for network in networks.values():
        network.eval()
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
    return networks


def write_tiny_model_folder(path: Path, *, seed: int = 0) -> ModelFolder:
    """Write a tiny model folder of the sticker recipe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = path.parent / f"{path.name}-vocab.json"
    vocabulary.write_text(json.dumps({"kind": "wordpiece", "tokens": tiny_vocabulary()}))
    folder = save_model_folder(
        path,
        find_recipe("sticker"),
        tiny_networks(seed),
        scheduler=SCHEDULER,
        vocabulary_file=vocabulary,
        model_card="# Random weights\n",
    )
    vocabulary.unlink()
    return folder
