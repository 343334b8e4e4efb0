"""Sizes of a model's tensors: what the symbols in a recipe's shapes stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvsdk_export.families import ComponentRecipe
from mvsdk_export.families.recipe import TensorRecipe


def config_sizes(configs: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return what configurations say of the sizes that cross between components.

    Every configuration class names in `SYMBOLS` which of its fields gives which symbol, if any.

    Args:
        configs: Component name -> configuration of its network.

    Returns:
        Symbol -> field ("unet.latent_channels") -> size. Where the sizes of a symbol differ, the
        components do not fit together.
    """
    found: dict[str, dict[str, int]] = {}
    for component, config in configs.items():
        for symbol, name in getattr(type(config), "SYMBOLS", {}).items():
            found.setdefault(symbol, {})[f"{component}.{name}"] = getattr(config, name)
    return found


def graph_sizes(
    configs: Mapping[str, Any],
    *,
    num_frames: int,
    height: int,
    width: int,
    decode_frames: int | None = None,
) -> dict[str, int]:
    """Return the size of every symbol.

    F, C, h, w (latents), f (frames that are decoded at once), H, W (pixels), L (tokens), D
    (features that the denoiser attends to), K, T (pictures of a memory and their tokens), S (what
    the denoiser attends to: L, or L + K T with a memory). A configuration class may have a method
    `further_sizes` of the sizes so far, whose result is added to them and takes precedence: sizes
    of a second stage, or h and w where a latent is not 8 x 8 pixels.

    Args:
        configs: Component name -> configuration of its network.
        num_frames: Frames of a clip.
        height: Pixels; must be a multiple of the autoencoder's patch.
        width: Likewise.
        decode_frames: Frames that the decoder takes at once; None for all.
    """
    from mvsdk_export.families.autoencoder import PATCH

    sizes = {"F": num_frames, "H": height, "W": width, "h": height // PATCH, "w": width // PATCH}
    sizes["f"] = num_frames if decode_frames is None else decode_frames
    for symbol, fields in config_sizes(configs).items():
        sizes[symbol] = next(iter(fields.values()))
    if "L" in sizes:
        has_memory = any(getattr(config, "subjects", 0) for config in configs.values())
        sizes["S"] = sizes["L"] + (sizes["K"] * sizes["T"] if has_memory else 0)
    for config in configs.values():
        if hasattr(config, "further_sizes"):
            sizes |= config.further_sizes(sizes)
    return sizes


def input_shapes(
    component: ComponentRecipe, sizes: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input of a component's graph, by name."""
    names = (tensor.name for tensor in component.inputs)
    return dict(zip(names, tensor_shapes(component.inputs, sizes), strict=True))


def tensor_shapes(
    tensors: Sequence[TensorRecipe], sizes: Mapping[str, int]
) -> list[tuple[int, ...]]:
    """Return the shapes of inputs or outputs, in their order."""
    return [
        tuple(sizes[s] if isinstance(s, str) else s for s in tensor.shape) for tensor in tensors
    ]
