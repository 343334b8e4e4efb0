"""From a component's recipe and configuration to its module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from mvsdk._json import shorten
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.families.recipe import resolve

if TYPE_CHECKING:
    from torch import nn

MAX_REASON = 200
"""Characters of what a network says against its configuration: it may quote it at length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """What wrappers may be built for; each takes those that its recipe names."""

    height: int | None = None
    """Of the clip and of the picture that it begins with, pixels."""
    width: int | None = None
    guidance: tuple[float, float] | None = None
    """Classifier-free guidance of the first and the last frame; None for one evaluation."""
    sigma: float = 700.0
    """Noise level of a denoiser of one step."""


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
        with torch.device("meta"), warnings.catch_warnings():
            # Layers of no channels, which compute nothing.
            warnings.filterwarnings("error", message="Initializing zero-element tensors")
            network: nn.Module = resolve(component.network)(config)
    except (ValueError, RuntimeError, ArithmeticError, TypeError, UserWarning) as exc:
        name = component.network.partition(":")[2]
        raise CheckpointError(
            f"{component.folder}/config.json describes no {name} that can be built: "
            f"{_one_line(exc)}; correct the file"
        ) from exc
    return network.eval()


def weight_shapes(
    components: Sequence[ComponentRecipe], configs: Mapping[str, Any]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return component -> name of a weight of its network -> shape.

    Raises:
        CheckpointError: As `build_on_meta`.
    """
    return {
        part.name: {
            name: tuple(weight.shape)
            for name, weight in build_on_meta(part, configs[part.name]).state_dict().items()
        }
        for part in components
    }


def wrap(
    component: ComponentRecipe, network: nn.Module, options: GraphOptions | None = None
) -> nn.Module:
    """Return the graph that phones get: the network, or the recipe's wrapper around it.

    Of a component that is cut, its part of that graph.

    Args:
        component: Names the wrapper and the options that it takes.
        network: Of the recipe, in evaluation mode.
        options: None for the defaults, which have no size.

    Raises:
        CheckpointError: If there is no such graph, for example because a picture is too small.
    """
    graph = _wrap_whole(component, network, options or GraphOptions())
    if component.cut is None:
        return graph
    from mvsdk_export.checkpoints.cut_graph import cut_graph

    return cut_graph(component, graph)


def _wrap_whole(component: ComponentRecipe, network: nn.Module, options: GraphOptions) -> nn.Module:
    if component.wrapper is None:
        return network
    arguments = {name: getattr(options, name) for name in component.wrapper_options}
    try:
        return resolve(component.wrapper)(network, **arguments).eval()
    except (ValueError, RuntimeError) as exc:
        asked = ", ".join(f"{name} {value}" for name, value in arguments.items())
        raise CheckpointError(
            f"there is no graph of {component.name} for {asked or 'this network'}: "
            f"{_one_line(exc)}; choose other values, or correct {component.folder}/config.json"
        ) from exc


def _one_line(exc: Exception) -> str:
    return shorten(" ".join(str(exc).split()), MAX_REASON)
