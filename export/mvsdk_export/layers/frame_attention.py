"""The ways to write attention between frames: equal maths, as in layers/implementations.py."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from mvsdk_export.layers.implementations import temporal_unrolled
from mvsdk_export.layers.token_attention import token_batched, token_fused

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


FRAME_ATTENTION_FUNCTIONS: dict[
    str, Callable[[Tensor, Tensor, Tensor, int, int, float], Tensor]
] = {
    "fused": frames_fused,
    "batched": frames_batched,
    "unrolled": frames_unrolled,
}
