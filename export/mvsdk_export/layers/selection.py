"""Which implementation a layer has on which engine: each class says its own.

A class of layer that can be computed in several ways names the best of them by engine:

    IMPLEMENTATIONS: ClassVar[Implementations] = {"htp": "tanh", "float": "sigmoid"}

The ways themselves are plain functions in tables (implementations.py, token_attention.py). An
engine that a class does not name takes what the class says of the engine's parent (`ENGINES`).
Those of "htp" were found on Qualcomm's HTP at w8a16 (docs/npu_forms.md). Where floats stay floats,
weights need no second term and a sigmoid is a sigmoid; what the HTP's tiles like is neither here
nor there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import nn

Implementations: TypeAlias = Mapping[str, str]
"""Engine -> key of the table of the layer's implementations."""

ENGINES: Mapping[str, str | None] = {
    "htp": None,
    "htp_fp16": "htp",
    "float": "htp",
    "onnx_cpu": "float",
    "coreml": "float",
    "coreml_split_einsum": "coreml",
    "coreai": "float",
    "xnnpack": "float",
}
"""What runs graphs -> the engine whose implementations it takes where a class names none for it.

`htp` is Qualcomm's HTP at w8a16, and the parent of all; `float` stands for whatever computes in
floating point; `onnx_cpu` is ONNX Runtime on a CPU, which fuses `x * sigmoid(x)` and wants products
of matrices without transposes around them; `coreml_split_einsum` keeps channels first and unrolls
the heads, as Apple advises for the Neural Engine before iOS 18.
"""


def implementation_of(layer: type[nn.Module], engine: str) -> str | None:
    """Return the key of the implementation of a class of layers on an engine.

    Args:
        layer: Class of the layer.
        engine: One of `ENGINES`.

    Returns:
        Key of the table that the class reads; None if there is but one way to compute it.

    Raises:
        ValueError: If the engine is not known.
    """
    if engine not in ENGINES:
        msg = f"unknown engine {engine!r}, expected one of {', '.join(ENGINES)}"
        raise ValueError(msg)
    known: Implementations = getattr(layer, "IMPLEMENTATIONS", {})
    place: str | None = engine
    while place is not None and place not in known:
        place = ENGINES[place]
    return None if place is None else known[place]


def select_implementations_(network: nn.Module, engine: str) -> nn.Module:
    """Switch the layers of a network to their implementations on an engine, in place.

    Weights are untouched, and so is the mathematics: only its order and its precision change.

    Args:
        network: Network in any implementation, such as those of training.
        engine: One of `ENGINES`.

    Returns:
        The network.

    Raises:
        ValueError: If the engine is not known.
    """
    for module in network.modules():
        name = implementation_of(type(module), engine)
        if name is not None:
            _set(module, name)
    return network


def override_implementations_(
    network: nn.Module, implementations: Mapping[type[nn.Module], str]
) -> nn.Module:
    """Switch the layers of some classes to implementations of the caller's choice, in place.

    Args:
        network: Network whose layers are switched.
        implementations: Class of a layer, subclasses apart -> key of its table.

    Returns:
        The network.
    """
    for module in network.modules():
        if type(module) in implementations:
            _set(module, implementations[type(module)])
    return network


def _set(module: nn.Module, name: str) -> None:
    setattr(module, "implementation", name)  # noqa: B010 - torch types attributes
