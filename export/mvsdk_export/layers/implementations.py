"""Implementations of layers: equal maths, unequal speed and precision.

Each is a plain function over the projected inputs (or the weights) of a layer. Those of one table
agree to float tolerance (a test holds them to it); docs/npu_forms.md, where they are called forms,
has what Qualcomm's HTP compiler makes of each. Layers pick theirs by name, from the tables at the
end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# SiLU activation: x -> same shape


def silu_sigmoid(x: Tensor) -> Tensor:
    """Use the definition; frameworks fuse it."""
    return F.silu(x)


def silu_tanh(x: Tensor) -> Tensor:
    """Write the sigmoid as a hyperbolic tangent, which no compiler pattern takes apart."""
    return x * (torch.tanh(x * 0.5) * 0.5 + 0.5)


def silu_halves(x: Tensor) -> Tensor:
    """Multiply by the tangent at once, `h + h * tanh(h)` of `h = x / 2`: exact for large x.

    Where sigmoids are a half plus half a tangent, little is left of the tangent's bits in half
    precision, and the HTP computes that pattern coarsely behind a convolution.
    """
    half = x * 0.5
    return half + half * torch.tanh(half)


# 1x1 convolution: x (N, C, H, W), weight (D, C, 1, 1), bias (D,) -> (N, D, H, W)


def pointwise_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Use one matrix product over all positions; on CPUs the faster, in bfloat16 by far."""
    rows = F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias)
    return rows.permute(0, 3, 1, 2)


def pointwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Use the convolution, which NPUs take without a transpose."""
    return F.conv2d(x, weight, bias)


# Linear layer: x (B, N, C), weight (D, C), bias (D,) -> (B, N, D)


def linear_matmul(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Use a matrix product, whose int8 weights share one scale."""
    return F.linear(x, weight, bias)


def linear_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Use a 1x1 convolution, whose int8 weights have a scale per output."""
    rows = x.transpose(1, 2)[:, :, :, None]
    return F.conv2d(rows, weight[:, :, None, None], bias)[:, :, :, 0].transpose(1, 2)


def linear_map(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Use a 1x1 convolution over one map of sequences by tokens: the HTP cannot tile width 1."""
    rows = x.permute(2, 0, 1)[None]  # (1, C, B, N)
    return F.conv2d(rows, weight[:, :, None, None], bias).squeeze(0).permute(1, 2, 0)


def linear_two_terms(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Use two 1x1 convolutions, the second with what int8 loses of the first's weights.

    Together their 8-bit weights have about 15 bits.
    """
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    coarse = torch.round(weight / scale) * scale
    return linear_conv2d(x, coarse, bias) + linear_conv2d(x, weight - coarse, None)


# Group normalisation: x (N, C, H, W), groups, weight (C,), bias (C,), eps -> like x


def group_norm_native(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Use the framework's operator; exporters turn it into an instance normalisation."""
    return F.group_norm(x, groups, weight, bias, eps)


def group_norm_layer_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Normalise each group as one row, then scale and shift the channels."""
    rows = x.reshape(x.shape[0], groups, -1)
    rows = F.layer_norm(rows, (rows.shape[2],), eps=eps)
    return rows.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def group_norm_moments(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Take both moments by spatial means and a 1x1 convolution that averages each group."""
    size = x.shape[1] // groups
    average = torch.full((size, size), 1.0 / size, dtype=x.dtype, device=x.device)
    kernel = torch.block_diag(*[average] * groups)[:, :, None, None]
    centred = x - F.conv2d(x.mean(dim=(2, 3), keepdim=True), kernel)
    variance = F.conv2d((centred * centred).mean(dim=(2, 3), keepdim=True), kernel)
    return centred * torch.rsqrt(variance + eps) * weight[:, None, None] + bias[:, None, None]


# Spatial attention: q, k, v (N, C, H, W), heads -> (N, C, H, W)


def _heads_last(x: Tensor, heads: int) -> Tensor:
    n, channels, h, w = x.shape
    return x.reshape(n, heads, channels // heads, h * w)  # (N, heads, d, P)


def spatial_values_second(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multiply probabilities by values: `softmax(q^T k) @ v^T`."""
    shape = q.shape
    q, k, v = (_heads_last(x, heads) for x in (q, k, v))
    probabilities = (q.transpose(2, 3) @ k * q.shape[2] ** -0.5).softmax(dim=-1)
    return (probabilities @ v.transpose(2, 3)).transpose(2, 3).reshape(shape)


def spatial_values_first(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multiply values by probabilities: one transpose less, and 8-bit probabilities on the HTP."""
    shape = q.shape
    q, k, v = (_heads_last(x, heads) for x in (q, k, v))
    probabilities = (q.transpose(2, 3) @ k * q.shape[2] ** -0.5).softmax(dim=-1)
    return (v @ probabilities.transpose(2, 3)).reshape(shape)


def spatial_heads_split(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Unroll the heads: one small product per head, concatenated (MHA to SHA)."""
    shape = q.shape
    q, k, v = (_heads_last(x, heads) for x in (q, k, v))
    out: list[Tensor] = []
    for head in range(heads):
        logits = q[:, head].transpose(1, 2) @ k[:, head] * q.shape[2] ** -0.5
        out.append((logits.softmax(dim=-1) @ v[:, head].transpose(1, 2)).transpose(1, 2))
    return torch.cat(out, dim=1).reshape(shape)


# Cross-attention: q (B * F, C, H, W), k and v (B, L, C), heads -> (B * F, C, H, W)


def _split_context(x: Tensor, heads: int) -> Tensor:
    b, length, channels = x.shape
    return x.reshape(b, length, heads, channels // heads).permute(0, 2, 1, 3)  # (B, heads, L, d)


def cross_frames_in_rows(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Stack the positions of all frames as rows of one product per head."""
    n, channels, h, w = q.shape
    b, d = k.shape[0], channels // heads
    rows = q.permute(0, 2, 3, 1).reshape(b, n // b * h * w, heads, d).permute(0, 2, 1, 3)
    logits = rows @ _split_context(k, heads).transpose(2, 3) * d**-0.5  # (B, heads, F * P, L)
    out = logits.softmax(dim=-1) @ _split_context(v, heads)
    return out.permute(0, 2, 1, 3).reshape(n, h, w, channels).permute(0, 3, 1, 2)


def cross_context_repeated(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Repeat keys and values for every frame, as public pipelines do."""
    n, channels, h, w = q.shape
    d, repeats = channels // heads, n // k.shape[0]
    rows = q.reshape(n, heads, d, h * w).transpose(2, 3)
    k, v = (_split_context(x, heads).repeat_interleave(repeats, dim=0) for x in (k, v))
    out = (rows @ k.transpose(2, 3) * d**-0.5).softmax(dim=-1) @ v
    return out.transpose(2, 3).reshape(n, channels, h, w)


def cross_heads_split(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Stack frames as rows and unroll the heads."""
    n, channels, h, w = q.shape
    b, d = k.shape[0], channels // heads
    rows = q.permute(0, 2, 3, 1).reshape(b, n // b * h * w, channels)
    out: list[Tensor] = []
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        logits = rows[:, :, part] @ k[:, :, part].transpose(1, 2) * d**-0.5
        out.append(logits.softmax(dim=-1) @ v[:, :, part])
    return torch.cat(out, dim=2).reshape(n, h, w, channels).permute(0, 3, 1, 2)


# Temporal convolution: x (B * F, C, H, W), weight (C, C, 3, 1, 1), bias (C,), F


def temporal_conv2d(x: Tensor, weight: Tensor, bias: Tensor, num_frames: int) -> Tensor:
    """Lay frames along the height and positions along the width of one 2-D convolution."""
    n, channels, h, w = x.shape
    b = n // num_frames
    x = x.reshape(b, num_frames, channels, h * w).permute(0, 2, 1, 3)  # (B, C, F, P)
    x = F.conv2d(x, weight[..., 0], bias, padding=(1, 0))
    return x.permute(0, 2, 1, 3).reshape(n, channels, h, w)


def temporal_conv3d(x: Tensor, weight: Tensor, bias: Tensor, num_frames: int) -> Tensor:
    """Use the 3-D convolution of the papers: rank 5, which Core ML and others dislike."""
    n, channels, h, w = x.shape
    x = x.reshape(n // num_frames, num_frames, channels, h, w).permute(0, 2, 1, 3, 4)
    x = F.conv3d(x, weight, bias, padding=(1, 0, 0))
    return x.permute(0, 2, 1, 3, 4).reshape(n, channels, h, w)


def temporal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, num_frames: int) -> Tensor:
    """Put positions into the batch of a 1-D convolution."""
    n, channels, h, w = x.shape
    b = n // num_frames
    x = x.reshape(b, num_frames, channels, h * w).permute(0, 3, 2, 1)
    x = x.reshape(b * h * w, channels, num_frames)
    x = F.conv1d(x, weight[..., 0, 0], bias, padding=1)
    x = x.reshape(b, h * w, channels, num_frames).permute(0, 3, 2, 1)
    return x.reshape(n, channels, h, w)


def _shifted(x: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Return the previous and the next frame of every frame of one clip, zeros outside."""
    if x.shape[0] != num_frames:
        msg = f"the shift forms take one clip of {num_frames} frames, got {x.shape[0]}"
        raise ValueError(msg)
    zero = torch.zeros_like(x[:1])
    return torch.cat([zero, x[:-1]]), torch.cat([x[1:], zero])


def temporal_shift_concat(x: Tensor, weight: Tensor, bias: Tensor, num_frames: int) -> Tensor:
    """Concatenate the shifted frames along the channels and apply one 1x1 convolution."""
    before, after = _shifted(x, num_frames)
    kernel = torch.cat([weight[:, :, tap] for tap in range(3)], dim=1)  # (C, 3C, 1, 1)
    return F.conv2d(torch.cat([before, x, after], dim=1), kernel, bias)


def temporal_shift_sum(x: Tensor, weight: Tensor, bias: Tensor, num_frames: int) -> Tensor:
    """Sum three 1x1 convolutions of the shifted frames."""
    before, after = _shifted(x, num_frames)
    out = F.conv2d(before, weight[:, :, 0]) + F.conv2d(after, weight[:, :, 2])
    return out + F.conv2d(x, weight[:, :, 1], bias)


# Temporal attention: q, k, v (B * F, C, H, W), F, heads -> (B * F, C, H, W)


def temporal_batched(q: Tensor, k: Tensor, v: Tensor, num_frames: int, heads: int) -> Tensor:
    """Attend with the positions in the batch: many F x F products, minutes on an HTP compiler."""
    n, channels, h, w = q.shape
    b, d = n // num_frames, channels // heads

    def split(x: Tensor) -> Tensor:
        x = x.reshape(b, num_frames, channels, h * w).permute(0, 3, 1, 2)  # (B, P, F, C)
        x = x.reshape(b * h * w, num_frames, heads, d)
        return x.permute(0, 2, 1, 3)

    out = (split(q) @ split(k).transpose(2, 3) * d**-0.5).softmax(dim=-1) @ split(v)
    out = out.permute(0, 2, 1, 3).reshape(b, h * w, num_frames, channels)
    return out.permute(0, 2, 3, 1).reshape(n, channels, h, w)


def _head_kernels(
    channels: int, heads: int, like: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return 1x1 kernels that sum the channels of each head (scaled) and spread them again."""
    d = channels // heads
    members = torch.eye(heads, dtype=like.dtype, device=like.device).repeat_interleave(d, dim=1)
    sums = members * (d**-0.5 if scale is None else scale)
    return sums[:, :, None, None], members.T.contiguous()[:, :, None, None]


def temporal_unrolled(
    q: Tensor, k: Tensor, v: Tensor, num_frames: int, heads: int, scale: float | None = None
) -> Tensor:
    """Unroll the query frames of one clip; dot products are elementwise products and a 1x1 conv.

    `scale` multiplies the logits; None takes the one over the root of the head's width.
    """
    _one_clip(q, num_frames)
    head_sum, head_expand = _head_kernels(q.shape[1], heads, q, scale)
    out: list[Tensor] = []
    for frame in range(num_frames):
        logits = F.conv2d(q[frame : frame + 1] * k, head_sum)  # (F, heads, H, W)
        probabilities = F.conv2d(logits.softmax(dim=0), head_expand)
        out.append((probabilities * v).sum(dim=0, keepdim=True))
    return torch.cat(out)


def temporal_rotated(q: Tensor, k: Tensor, v: Tensor, num_frames: int, heads: int) -> Tensor:
    """Rotate the key frames of one clip instead: F products of whole clips, softmax written out."""
    _one_clip(q, num_frames)
    head_sum, head_expand = _head_kernels(q.shape[1], heads, q)

    def rotate(x: Tensor, by: int) -> Tensor:
        return torch.cat([x[by:], x[:by]]) if by else x

    logits = [F.conv2d(q * rotate(k, by), head_sum) for by in range(num_frames)]
    peak = logits[0]
    for other in logits[1:]:
        peak = torch.maximum(peak, other)
    weights = [(x - peak).exp() for x in logits]
    total = torch.stack(weights).sum(dim=0) if len(weights) > 8 else sum(weights[1:], weights[0])
    out = F.conv2d(weights[0] / total, head_expand) * v
    for by, weight in enumerate(weights[1:], start=1):
        out = out + F.conv2d(weight / total, head_expand) * rotate(v, by)
    return out


def _one_clip(x: Tensor, num_frames: int) -> None:
    if x.shape[0] != num_frames:
        msg = f"this implementation takes one clip of {num_frames} frames, got {x.shape[0]} frames"
        raise ValueError(msg)


SILU_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": silu_sigmoid,
    "tanh": silu_tanh,
    "halves": silu_halves,
}
POINTWISE_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "linear": pointwise_linear,
    "conv2d": pointwise_conv2d,
}
LINEAR_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "matmul": linear_matmul,
    "conv2d": linear_conv2d,
    "map": linear_map,
    "two_terms": linear_two_terms,
}
GROUP_NORM_FUNCTIONS: dict[str, Callable[[Tensor, int, Tensor, Tensor, float], Tensor]] = {
    "native": group_norm_native,
    "layer_norm": group_norm_layer_norm,
    "moments": group_norm_moments,
}
SPATIAL_ATTENTION_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "values_second": spatial_values_second,
    "values_first": spatial_values_first,
    "heads_split": spatial_heads_split,
}
CROSS_ATTENTION_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "frames_in_rows": cross_frames_in_rows,
    "context_repeated": cross_context_repeated,
    "heads_split": cross_heads_split,
}
TEMPORAL_CONV_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "conv2d": temporal_conv2d,
    "conv3d": temporal_conv3d,
    "conv1d": temporal_conv1d,
    "shift_concat": temporal_shift_concat,
    "shift_sum": temporal_shift_sum,
}
TEMPORAL_ATTENTION_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int, int], Tensor]] = {
    "batched": temporal_batched,
    "unrolled": temporal_unrolled,
    "rotated": temporal_rotated,
}
