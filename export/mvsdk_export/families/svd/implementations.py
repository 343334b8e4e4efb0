"""Implementations of the layers of Stable Video Diffusion, as in layers/implementations.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk.manifest.usual import MAX_CLIP_FPS, MAX_MOTION
from mvsdk_export.families.svd.blocks import sinusoids
from mvsdk_export.layers.implementations import temporal_unrolled
from mvsdk_export.layers.token_attention import token_batched, token_fused

# Embedding of what is told beside a picture: added_time_ids (B, 3), width of each ->
# (B, 3 * width)


def added_angles(values: Tensor, dim: int) -> Tensor:
    """Compute every angle.

    In half precision those of motion bucket 255 are an eighth of a radian apart, and a sine was off
    by up to 0.17 on the HTP's emulator.
    """
    return sinusoids(values.flatten(), dim).reshape(values.shape[0], -1)


def added_tables(values: Tensor, dim: int) -> Tensor:
    """Interpolate rows of tables, which are known before anything runs.

    A motion bucket is a whole number and meets one row, so it is exact in half precision as well.
    Frames per second have a row each quarter: between two of them the error is below 1 / 128, what
    half precision rounds 16 and more to. Noise goes up to 1, where angles are fine as they are.
    """
    fps, motion, noise = (values[:, index : index + 1] for index in range(3))
    parts = (
        _interpolated(fps, int(MAX_CLIP_FPS) - 1, 4, dim),
        _interpolated(motion, int(MAX_MOTION), 1, dim),
        sinusoids(noise.flatten(), dim),
    )
    return torch.cat(parts, dim=1)


def _interpolated(values: Tensor, most: float, rows_per_unit: int, dim: int) -> Tensor:
    """Embed values `(B, 1)` of 0 to `most`, linear between rows."""
    rows = torch.arange(int(most * rows_per_unit) + 1, dtype=values.dtype, device=values.device)
    shares = F.relu(1 - (values * rows_per_unit - rows).abs())
    return shares @ sinusoids(rows / rows_per_unit, dim)


# Attention between frames, position by position: q, k, v (B * F, P, heads * d), F, heads,
# scale of the logits -> like q


def _positions_first(x: Tensor, num_frames: int) -> Tensor:
    n, positions, width = x.shape
    b = n // num_frames
    x = x.reshape(b, num_frames, positions, width).transpose(1, 2)
    return x.reshape(b * positions, num_frames, width)


def _frames_first(x: Tensor, positions: int) -> Tensor:
    n, num_frames, width = x.shape
    b = n // positions
    x = x.reshape(b, positions, num_frames, width).transpose(1, 2)
    return x.reshape(b * num_frames, positions, width)


def frames_fused(
    q: Tensor, k: Tensor, v: Tensor, num_frames: int, heads: int, scale: float
) -> Tensor:
    """Put the positions into the batch and use the framework's kernel."""
    positions = q.shape[1]
    q, k, v = (_positions_first(x, num_frames) for x in (q, k, v))
    return _frames_first(token_fused(q, k, v, heads, scale), positions)


def frames_batched(
    q: Tensor, k: Tensor, v: Tensor, num_frames: int, heads: int, scale: float
) -> Tensor:
    """Put the positions into the batch: many F x F products, minutes on an HTP compiler."""
    positions = q.shape[1]
    q, k, v = (_positions_first(x, num_frames) for x in (q, k, v))
    return _frames_first(token_batched(q, k, v, heads, scale), positions)


def frames_unrolled(
    q: Tensor, k: Tensor, v: Tensor, num_frames: int, heads: int, scale: float
) -> Tensor:
    """Unroll the query frames of one clip: elementwise products and 1x1 convolutions.

    Positions are spread over both sides of a map: the HTP compiler tiles it three times as fast as
    one of a single long side.
    """
    n, positions, width = q.shape
    rows = math.gcd(positions, 8)
    q, k, v = (x.transpose(1, 2).reshape(n, width, rows, positions // rows) for x in (q, k, v))
    out = temporal_unrolled(q, k, v, num_frames, heads, scale)
    return out.reshape(n, width, positions).transpose(1, 2)


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


FRAME_ATTENTION_FUNCTIONS: dict[
    str, Callable[[Tensor, Tensor, Tensor, int, int, float], Tensor]
] = {
    "fused": frames_fused,
    "batched": frames_batched,
    "unrolled": frames_unrolled,
}
GEGLU_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Linear], Tensor]] = {
    "one_product": geglu_one_product,
    "two_products": geglu_two_products,
}
ADDED_FUNCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "angles": added_angles,
    "tables": added_tables,
}
QUICK_GELU_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": quick_gelu_sigmoid,
    "tanh": quick_gelu_tanh,
    "halves": quick_gelu_halves,
}
