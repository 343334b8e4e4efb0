"""A network of another configuration, made of the weights of a given one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mvsdk_export.errors import CompressionError
from mvsdk_export.networks.svd.unet import SVDUNet, SVDUNetConfig


def build_empty(config: SVDUNetConfig) -> SVDUNet:
    """Build a network without memory for its weights.

    Raises:
        CompressionError: If no such network can be built.
    """
    try:
        with torch.device("meta"):
            return SVDUNet(config)
    except (ValueError, RuntimeError, ArithmeticError) as exc:
        raise CompressionError(
            f"no network of this configuration can be built: {' '.join(str(exc).split())}; "
            "choose other settings"
        ) from exc


def rebuild(unet: SVDUNet, config: SVDUNetConfig, state: Mapping[str, Tensor]) -> SVDUNet:
    """Build a network that takes over tensors, without copying them.

    Args:
        unet: The network that they come from; the new one is in the same mode (training or not).
        config: Configuration of the new network.
        state: Its whole state dict; tensors are shared.
    """
    network = build_empty(config)
    network.load_state_dict(state, assign=True)
    return network.train(unet.training)
