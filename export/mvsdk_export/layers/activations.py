"""Activations of transformers, and the ways to write them, as in layers/implementations.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvsdk_export.layers.selection import Implementations

# Gated linear unit: x (N, P, C), weight (2 D, C), bias (2 D,), linear layer -> (N, P, D)

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def geglu_one_product(x: Tensor, weight: Tensor, bias: Tensor, linear: Linear) -> Tensor:
    """Compute values and gates with one product, and cut it."""
    values, gates = linear(x, weight, bias).chunk(2, dim=-1)
    return values * F.gelu(gates)


def geglu_two_products(x: Tensor, weight: Tensor, bias: Tensor, linear: Linear) -> Tensor:
    """Cut the weights: no copy of the widest activation of a network, and a range for each half."""
    half = weight.shape[0] // 2
    gates = F.gelu(linear(x, weight[half:], bias[half:]))
    return linear(x, weight[:half], bias[:half]) * gates


# Quick Gaussian error linear unit: x -> same shape


def quick_gelu_sigmoid(x: Tensor) -> Tensor:
    """Use the definition."""
    return x * torch.sigmoid(1.702 * x)


def quick_gelu_tanh(x: Tensor) -> Tensor:
    """Write the sigmoid as a hyperbolic tangent, for the reason that SiLU has one."""
    return x * (torch.tanh(x * 0.851) * 0.5 + 0.5)


def quick_gelu_halves(x: Tensor) -> Tensor:
    """Multiply by the tangent at once, for the reason that SiLU has such an implementation."""
    half = x * 0.5
    return half + half * torch.tanh(x * 0.851)


GEGLU_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Linear], Tensor]] = {
    "one_product": geglu_one_product,
    "two_products": geglu_two_products,
}
QUICK_GELU_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": quick_gelu_sigmoid,
    "tanh": quick_gelu_tanh,
    "halves": quick_gelu_halves,
}


class QuickGelu(nn.Module):
    """Sigmoid approximation of the Gaussian error linear unit, `x * sigmoid(1.702 x)`.

    Reference:
        Hendrycks and Gimpel 2016, arXiv:1606.08415, sec. 2.
    """

    IMPLEMENTATIONS: ClassVar[Implementations] = {
        "htp": "tanh",
        "htp_fp16": "halves",
        "float": "sigmoid",
    }

    def __init__(self) -> None:
        super().__init__()
        self.implementation = "sigmoid"

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return QUICK_GELU_FUNCTIONS[self.implementation](x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGelu}
