"""A network of another configuration, made of the weights of a given one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mvsdk_export.errors import CompressionError
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.families.svd.unet import SVDUNet


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

    Raises:
        CompressionError: If they are not the weights of such a network.
    """
    network = build_empty(config)
    strange = sorted(state.keys() ^ network.state_dict().keys())
    if strange:
        raise CompressionError(
            f"the network is not what its configuration says: {strange[0]} is one of "
            f"{len(strange)} weights too many or missing; merge its funnels first, if it has some"
        )
    network.load_state_dict(state, assign=True)
    return network.train(unet.training)
