"""From a component's recipe and configuration to its module."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mvsdk_export.errors import CheckpointError
from mvsdk_export.recipes import ComponentRecipe

if TYPE_CHECKING:
    from torch import nn


def resolve(reference: str) -> Any:
    """Return what `"module:attribute"` names."""
    module, _, attribute = reference.partition(":")
    return getattr(import_module(module), attribute)


def with_frames(config: Any, num_frames: int | None) -> Any:
    """Return a configuration for another clip length; the same if it has no clip length."""
    if num_frames is None or all(item.name != "num_frames" for item in fields(config)):
        return config
    return replace(config, num_frames=num_frames)


def build_on_meta(component: ComponentRecipe, config: Any) -> nn.Module:
    """Build a network without memory for its weights.

    Raises:
        CheckpointError: If no such network can be built, for example when the groups of a
            normalisation do not divide the channels.
    """
    import torch

    try:
        with torch.device("meta"):
            network: nn.Module = resolve(component.network)(config)
    except (ValueError, RuntimeError, ArithmeticError, TypeError) as exc:
        name = component.network.partition(":")[2]
        raise CheckpointError(
            f"{component.folder}/config.json describes no {name} that can be built: "
            f"{' '.join(str(exc).split())}; correct the file"
        ) from exc
    return network.eval()


def wrap(component: ComponentRecipe, network: nn.Module) -> nn.Module:
    """Return the graph that phones get: the network, or the recipe's wrapper around it."""
    return resolve(component.wrapper)(network).eval() if component.wrapper else network
