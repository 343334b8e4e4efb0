"""The ways to write attention between tokens: equal maths, as in layers/implementations.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mvsdk_export.layers.selection import Implementations

# Attention between tokens: q (N, P, heads * d), k and v (N, L, heads * d), heads, scale
# of the logits -> like q


def _split(x: Tensor, heads: int) -> Tensor:
    n, length, width = x.shape
    return x.reshape(n, length, heads, width // heads).transpose(1, 2)  # (N, heads, L, d)


def _merge(x: Tensor) -> Tensor:
    n, heads, length, d = x.shape
    return x.transpose(1, 2).reshape(n, length, heads * d)


def token_fused(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Use the framework's kernel, which never writes the probabilities to memory.

    Not on CPUs in bfloat16: there it is two to nine times slower than the products it fuses.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return token_batched(q, k, v, heads, scale)
    q, k, v = (_split(x, heads) for x in (q, k, v))
    # Left out where it is the usual one: Core ML's operator of the same name takes no other.
    usual = math.isclose(scale, q.shape[3] ** -0.5)
    return _merge(F.scaled_dot_product_attention(q, k, v, scale=None if usual else scale))


def token_batched(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Multiply matrices with the heads in the batch."""
    q, k, v = (_split(x, heads) for x in (q * scale, k, v))
    return _merge((q @ k.transpose(2, 3)).softmax(dim=-1) @ v)


def token_heads_split(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Unroll the heads: one product per head, concatenated."""
    q = q * scale
    parts = zip(*(x.chunk(heads, dim=2) for x in (q, k, v)), strict=True)
    return torch.cat([(a @ b.transpose(1, 2)).softmax(dim=-1) @ c for a, b, c in parts], dim=2)


def token_rows_split(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Unroll heads and batch: only the probabilities of one head of one frame live at a time."""
    rows = zip(*(x.split(1) for x in (q, k, v)), strict=True)
    return torch.cat([token_heads_split(a, b, c, heads, scale) for a, b, c in rows])


SCORE_BYTES = 640 << 20
"""Above this, in 16-bit values, the probabilities of all heads and frames are not made at once."""


def token_bounded(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Multiply with heads in the batch where all probabilities have room, else one head at a time.

    At 64x64 positions those of 16 frames and 8 heads are 4 GiB.
    """
    scores = 2 * q.shape[0] * heads * q.shape[1] * k.shape[1]
    attend = token_batched if scores <= SCORE_BYTES else token_rows_split
    return attend(q, k, v, heads, scale)


def token_scaled_logits(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Scale the logits in place of the queries: other ranges, once they are quantised."""
    q, k, v = (_split(x, heads) for x in (q, k, v))
    return _merge((q @ k.transpose(2, 3) * scale).softmax(dim=-1) @ v)


def token_split_einsum(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Unroll the heads over `(N, d, 1, P)`, channels first, which the Neural Engine likes best.

    Both products have the one form of a product of rank 4 that Core ML knows as an einsum of its
    own (`nchw,nwhu->nchu`), so that nothing is transposed between them.

    Reference:
        Apple 2022, "Deploying Transformers on the Apple Neural Engine", machinelearning.apple.com/
        research/neural-engine-transformers.
    """
    parts = zip(*(_channels_first(x).chunk(heads, dim=1) for x in (q * scale, k, v)), strict=True)
    out: list[Tensor] = []
    for query, key, value in parts:
        logits = torch.einsum("bkhc,bchq->bkhq", key.transpose(1, 3), query)
        out.append(torch.einsum("bchk,bkhq->bchq", value, logits.softmax(dim=1)))
    return torch.cat(out, dim=1).squeeze(2).transpose(1, 2)


# Attention from each token to itself and those before it: q, k, v (N, L, heads * d), heads,
# scale of the logits -> like q

BOUNDED_MASK = -64.0
"""Added to the logits of later tokens where numbers have a common range: e**-64 of a probability is
nothing in float32, and the range of the logits stays one that 16 bits divide finely."""


def causal_fused(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Use the framework's kernel."""
    q, k, v = (_split(x, heads) for x in (q, k, v))
    return _merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale))


def causal_masked(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Add a number to the logits of later tokens that no probability of theirs survives."""
    return _causal(q, k, v, heads, scale, -1e4)


def causal_bounded_mask(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    """Add a number that is small enough for the logits to keep their bits once quantised."""
    return _causal(q, k, v, heads, scale, BOUNDED_MASK)


def _causal(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, mask: float) -> Tensor:
    length = q.shape[1]
    q, k, v = (_split(x, heads) for x in (q * scale, k, v))
    later = torch.full((length, length), mask, dtype=q.dtype, device=q.device).triu(1)
    return _merge((q @ k.transpose(2, 3) + later).softmax(dim=-1) @ v)


def _channels_first(x: Tensor) -> Tensor:
    """Map tokens `(N, P, C)` to `(N, C, 1, P)`."""
    return x.transpose(1, 2)[:, :, None]


TOKEN_ATTENTION_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "fused": token_fused,
    "batched": token_batched,
    "scaled_logits": token_scaled_logits,
    "heads_split": token_heads_split,
    "rows_split": token_rows_split,
    "bounded": token_bounded,
    "split_einsum": token_split_einsum,
}

CAUSAL_ATTENTION_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int, float], Tensor]] = {
    "fused": causal_fused,
    "masked": causal_masked,
    "bounded_mask": causal_bounded_mask,
}


def token_attention_on(htp: str) -> Implementations:
    """Return how attention between tokens is implemented by engine.

    Core ML has an operator of its own from iOS 18 on; Core AI takes the framework's apart head by
    head (targets/coreai/implementations.py).

    Args:
        htp: On Qualcomm's HTP, where networks differ (docs/npu_forms.md).
    """
    return {
        "htp": htp,
        "coreml": "fused",
        "coreml_split_einsum": "split_einsum",
        "coreai": "fused",
        "xnnpack": "batched",
    }
