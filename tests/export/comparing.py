"""Networks whose every weight shows in their results, and how far two results are apart."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def lively(network: Network) -> Network:
    """Give norms, biases and mixers values of their own, which start as ones, zeros and halves."""
    for parameter in network.parameters():
        if parameter.ndim < 2:
            nn.init.normal_(parameter, std=0.5)
    return network.eval()


def relative_error(got: Tensor, want: Tensor) -> float:
    """Return the largest difference over the largest value that is wanted."""
    assert got.shape == want.shape
    return float((got - want).detach().abs().max() / want.detach().abs().max())


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
