"""Sizes of a model's tensors: what the symbols in a recipe's shapes stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvsdk_export.recipes import ComponentRecipe

CONFIG_FIELDS: Mapping[str, tuple[str, ...]] = {
    "C": ("latent_channels",),
    "L": ("max_length",),
    "D": ("hidden_size", "context_dim"),
    "K": ("memory_slots",),
    "T": ("memory_tokens",),
}
"""Symbol -> fields of network configurations that give it; all of them must agree."""


def graph_sizes(
    configs: Mapping[str, Any], *, num_frames: int, height: int, width: int
) -> dict[str, int]:
    """Return the size of every symbol.

    F, C, h, w (latents), H, W (pixels), L (tokens), D (text features), K, T (pictures of a memory
    and their tokens), S (what the denoiser attends to: L, or L + K T with a memory).

    Args:
        configs: Component name -> configuration of its network.
        num_frames: Frames of a clip.
        height: Pixels; must be a multiple of the autoencoder's patch.
        width: Likewise.
    """
    from mvsdk_export.networks.vae import PATCH

    sizes = {"F": num_frames, "H": height, "W": width, "h": height // PATCH, "w": width // PATCH}
    for symbol, names in CONFIG_FIELDS.items():
        for config in configs.values():
            for name in names:
                if hasattr(config, name):
                    sizes[symbol] = getattr(config, name)
    has_memory = any(getattr(config, "subjects", 0) for config in configs.values())
    sizes["S"] = sizes["L"] + (sizes["K"] * sizes["T"] if has_memory else 0)
    return sizes


def input_shapes(
    component: ComponentRecipe, sizes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input of a component's graph, by name."""
    return {
        tensor.name: tuple(sizes[s] if isinstance(s, str) else s for s in tensor.shape)
        for tensor in component.inputs
    }
