"""Model folders of the toys, and what pip would leave of the package that offers them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import nn

from mvsdk_export.checkpoints import EDMScheduler, FlowScheduler, save_model_folder
from mvsdk_export.families import GROUP, Recipe
from toy_models.networks import Text, TextConfig
from toy_models.recipes import TOYS


def write_package(folder: Path) -> Path:
    """Write the record of an installed package whose entry points are the toys.

    Args:
        folder: To be one of `sys.path`.
    """
    info = folder / "toy_models-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-models\nVersion: 1.0\n")
    lines = [f"{name} = toy_models.recipes:{_constant(name)}" for name in TOYS]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
    return folder


def write_toy(path: Path, recipe: Recipe, *, seed: int = 0) -> Path:
    """Write a model folder of a toy, with random weights."""
    generator = torch.Generator()
    generator.manual_seed(seed)
    networks = _networks(recipe, generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = path.parent / f"{path.name}-vocab.json"
    vocabulary.write_text(json.dumps({"kind": "wordpiece", "tokens": _tokens(recipe)}))
    kind = next(iter(recipe.schedulers))
    save_model_folder(
        path,
        recipe,
        networks,
        scheduler=EDMScheduler(sigma_min=0.05, sigma_max=5.0)
        if kind == "edm_euler"
        else FlowScheduler(kind="flow_euler", prediction_type="velocity"),
        vocabulary_file=vocabulary if recipe.takes_text else None,
        model_card="# Random weights\n",
    )
    vocabulary.unlink()
    return path


def _constant(name: str) -> str:
    return name.replace("-", "_").upper()


def _tokens(recipe: Recipe) -> list[str]:
    prompts = " ".join((*recipe.calibration_prompts, *recipe.verification_prompts))
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    return list(dict.fromkeys(tokens + re.findall("[a-z]+", prompts)))


def _networks(recipe: Recipe, generator: torch.Generator) -> dict[str, nn.Module]:
    """Return one network for each subfolder, with weights that keep values about their size."""
    from mvsdk_export.families.recipe import resolve

    networks: dict[str, nn.Module] = {}
    for part in {part.folder: part for part in recipe.components}.values():
        config_class = resolve(part.config)
        if config_class is TextConfig:
            config = TextConfig(vocabulary_size=len(_tokens(recipe)))
        else:
            config = config_class()
        network = resolve(part.network)(config).eval()
        for parameter in network.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
            else:
                nn.init.normal_(parameter, std=0.1, generator=generator)
        if isinstance(network, Text):
            nn.init.normal_(
                network.table.weight, generator=generator
            )  # a row is looked up, not summed
        networks[part.name] = network
    return networks
