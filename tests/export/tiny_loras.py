"""LoRAs of random numbers, with the names of the tools that people train them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Naming = Callable[[str, str], Mapping[str, str]]
"""(component, module) -> names of down, up and alpha."""

RANK = 4
ALPHA = 2.0


def kohya(component: str, module: str) -> Mapping[str, str]:
    start = {"unet": "lora_unet", "text_encoder": "lora_te"}[component]
    base = f"{start}_{module.replace('.', '_')}"
    parts = {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha"}
    return {part: f"{base}.{end}" for part, end in parts.items()}


def peft(component: str, module: str) -> Mapping[str, str]:
    base = f"{component}.{module}"
    return {"down": f"{base}.lora_A.weight", "up": f"{base}.lora_B.weight"}


def processors(component: str, module: str) -> Mapping[str, str]:
    """Return the names of diffusers in 2023: of attention alone."""
    attention, _, layer = module.removesuffix(".0").rpartition(".")
    base = f"{component}.{attention}.processor.{layer}_lora"
    return {"down": f"{base}.down.weight", "up": f"{base}.up.weight"}


def write_lora(
    path: Path,
    weights: Mapping[tuple[str, str], Tensor],
    naming: Naming,
    *,
    seed: int = 0,
) -> dict[tuple[str, str], Tensor]:
    """Write a LoRA for some layers.

    Args:
        path: The file.
        weights: (component, module) -> weight of the layer.
        naming: What tensors are called.
        seed: Of the numbers.

    Returns:
        (component, module) -> what it adds to the weight at scale 1.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    changes: dict[tuple[str, str], Tensor] = {}
    for (component, module), weight in weights.items():
        out, into, *kernel = weight.shape
        down = torch.randn(RANK, into, *kernel, generator=generator)
        up = torch.randn(out, RANK, *([1] * len(kernel)), generator=generator)
        names = naming(component, module)
        tensors |= {names["down"]: down, names["up"]: up}
        if "alpha" in names:
            tensors[names["alpha"]] = torch.tensor(ALPHA)
        alpha = ALPHA if "alpha" in names else RANK
        change = alpha / RANK * (up.flatten(1) @ down.flatten(1))
        changes[component, module] = change.reshape(weight.shape)
    save_file(tensors, path)
    return changes
