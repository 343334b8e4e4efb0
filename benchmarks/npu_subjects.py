"""The layers that `benchmarks.npu_forms` compiles: one small network around each form.

Weights and inputs are random: what a compiler does depends on shapes and operators, and rounding
errors are told apart well enough. Queries and keys are scaled so that the logits of an attention
have a standard deviation of about two, as in trained networks; flat probabilities hide errors.
No residual connection and no other layer surrounds a form, since both would hide its error too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk_export.layers import blocks
from mvsdk_export.layers.implementations import (
    CROSS_ATTENTION_FUNCTIONS,
    GROUP_NORM_FUNCTIONS,
    SILU_FUNCTIONS,
    SPATIAL_ATTENTION_FUNCTIONS,
    TEMPORAL_ATTENTION_FUNCTIONS,
    TEMPORAL_CONV_FUNCTIONS,
)
from mvsdk_export.layers.parts import FRAME_FUNCTIONS, POSITION_FUNCTIONS
from mvsdk_export.layers.resnet import ResBlock
from mvsdk_export.layers.selection import (
    implementation_of,
    override_implementations_,
    select_implementations_,
)
from mvsdk_export.layers.transformer import FeedForward, FrameAttention, SelfAttention

GROUPS = 16
SVD_HEAD_DIM = 64
CONTEXT_LENGTH, CONTEXT_DIM = 16, 192
QUERY_GAIN = 1.5
CALIBRATION_INPUTS = 8

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""An attention form with everything but queries, keys and values bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Shape of the input, `(frames, channels, height, width)`."""

    frames: int
    channels: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `FxCxHxW`.

        Raises:
            ValueError: If the text is anything else, or a layer has no form of that size.
        """
        if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){3}", text):
            raise ValueError(f"size is {text!r}; wanted FxCxHxW, for example 8x128x4x4")
        frames, channels, height, width = map(int, text.split("x"))
        if channels % blocks.HEAD_DIM:
            raise ValueError(f"size {text} has {channels} channels; allowed: multiples of 32")
        return cls(frames=frames, channels=channels, height=height, width=width)

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{self.frames}x{self.channels}x{self.height}x{self.width}"

    @property
    def heads(self) -> int:
        """Heads of an attention."""
        return self.channels // blocks.HEAD_DIM


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network and the inputs it is calibrated on; the first of them is the one it is run on."""

    network: nn.Module
    inputs: tuple[dict[str, Tensor], ...]
    fold_constants: bool = True

    @property
    def feeds(self) -> list[dict[str, NDArray[np.float32]]]:
        """The inputs as arrays."""
        return [{name: x.numpy() for name, x in values.items()} for values in self.inputs]

    def reference(self) -> NDArray[np.float32]:
        """Return the output for the first input, in float32."""
        with torch.no_grad():
            return self.network(*self.inputs[0].values()).numpy()


class _Call(nn.Module):
    """A form whose only input is the feature map; everything else is constant."""

    def __init__(self, form: Callable[..., Tensor], *arguments: Tensor | int | float) -> None:
        super().__init__()
        self.form = form
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, *self.arguments)


class _SelfAttention(nn.Module):
    def __init__(self, mix: Mix, channels: int) -> None:
        super().__init__()
        self.mix = mix
        self.to_qkv = _conv(channels, 3 * channels)
        self.to_out = _conv(channels, channels)
        with torch.no_grad():
            self.to_qkv.weight[: 2 * channels] *= QUERY_GAIN

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).chunk(3, dim=1)
        return self.to_out(self.mix(q, k, v))


class _CrossAttention(nn.Module):
    def __init__(self, mix: Mix, channels: int) -> None:
        super().__init__()
        self.mix = mix
        self.to_q = _conv(channels, channels)
        self.to_k = nn.Linear(CONTEXT_DIM, channels)
        self.to_v = nn.Linear(CONTEXT_DIM, channels)
        self.to_out = _conv(channels, channels)
        nn.init.normal_(self.to_k.weight, std=QUERY_GAIN * CONTEXT_DIM**-0.5)
        nn.init.normal_(self.to_v.weight, std=CONTEXT_DIM**-0.5)
        with torch.no_grad():
            self.to_q.weight *= QUERY_GAIN

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.to_out(self.mix(self.to_q(x), self.to_k(context), self.to_v(context)))


class _Product(nn.Module):
    """What ends an attention, alone: probabilities times values, in either order."""

    def __init__(self, *, probabilities_first: bool) -> None:
        super().__init__()
        self.probabilities_first = probabilities_first

    def forward(self, probabilities: Tensor, values: Tensor) -> Tensor:
        if self.probabilities_first:
            return probabilities @ values
        return (values.transpose(1, 2) @ probabilities.transpose(1, 2)).transpose(1, 2)


def _conv(in_channels: int, out_channels: int, kernel: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=(in_channels * kernel**2) ** -0.5)
    return conv


def _activation(form: str, size: Size) -> nn.Module:
    return _Call(SILU_FUNCTIONS[form])


def _activation_behind_norm(form: str, size: Size) -> nn.Module:
    return nn.Sequential(_group_norm("layer_norm", size), _activation(form, size))


def _activation_behind_convolution(form: str, size: Size) -> nn.Module:
    return nn.Sequential(_conv(size.channels, size.channels, 3), _activation(form, size))


def _group_norm(form: str, size: Size) -> nn.Module:
    weight = 1 + 0.2 * torch.randn(size.channels)
    bias = 0.2 * torch.randn(size.channels)
    return _Call(GROUP_NORM_FUNCTIONS[form], GROUPS, weight, bias, 1e-5)


def _spatial_attention(form: str, size: Size) -> nn.Module:
    attend = SPATIAL_ATTENTION_FUNCTIONS[form]
    return _SelfAttention(lambda q, k, v: attend(q, k, v, size.heads), size.channels)


def _cross_attention(form: str, size: Size) -> nn.Module:
    attend = CROSS_ATTENTION_FUNCTIONS[form]
    return _CrossAttention(lambda q, k, v: attend(q, k, v, size.heads), size.channels)


def _temporal_conv(form: str, size: Size) -> nn.Module:
    weight = torch.randn(size.channels, size.channels, 3, 1, 1) * (3 * size.channels) ** -0.5
    bias = 0.1 * torch.randn(size.channels)
    return _Call(TEMPORAL_CONV_FUNCTIONS[form], weight, bias, size.frames)


def _temporal_attention(form: str, size: Size) -> nn.Module:
    attend = TEMPORAL_ATTENTION_FUNCTIONS[form]
    return _SelfAttention(lambda q, k, v: attend(q, k, v, size.frames, size.heads), size.channels)


def _convolution(form: str, size: Size) -> nn.Module:
    return _conv(size.channels, size.channels, {"1x1": 1, "3x3": 3}[form])


def _folding(form: str, size: Size) -> nn.Module:
    return _temporal_conv("shift_concat", size)


def _matrix_product(form: str, size: Size) -> nn.Module:
    return _Product(probabilities_first=form == "probabilities first")


class _OfTokens(nn.Module):
    """A layer of tokens, whose input is the feature map."""

    def __init__(self, layer: nn.Module, *arguments: int) -> None:
        super().__init__()
        self.layer = layer
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2).transpose(1, 2), *self.arguments)


def _lowered(layer: nn.Module, kind: type[nn.Module], form: str) -> nn.Module:
    """Return a layer as the HTP gets it, in one of its forms."""
    return override_implementations_(select_implementations_(layer, "htp"), {kind: form})


def _svd_residual(form: str, size: Size) -> nn.Module:
    block = ResBlock(size.channels, size.channels, embedding_dim=None, groups=32, eps=1e-6)
    return _lowered(block, ResBlock, form)


def _svd_feed_forward(form: str, size: Size) -> nn.Module:
    layer = FeedForward(size.channels)
    return _OfTokens(_lowered(layer, FeedForward, form))


def _svd_attention(form: str, size: Size) -> nn.Module:
    layer = SelfAttention(size.channels, size.channels // SVD_HEAD_DIM)
    return _OfTokens(_lowered(layer, SelfAttention, form), size.frames)


def _svd_frame_attention(form: str, size: Size) -> nn.Module:
    layer = FrameAttention(size.channels, size.channels // SVD_HEAD_DIM)
    return _OfTokens(_lowered(layer, FrameAttention, form), size.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer and the forms of it that are compared."""

    forms: tuple[str, ...]
    build: Callable[[str, Size], nn.Module]
    chosen: str | None = None
    """The form that networks take on an NPU; None where there is nothing to choose."""


def _chosen(layer: type[nn.Module]) -> str:
    """Return what networks take on the HTP at w8a16."""
    name = implementation_of(layer, "htp")
    assert name is not None
    return name


LAYERS: dict[str, Layer] = {
    "activation": Layer(
        forms=tuple(SILU_FUNCTIONS), build=_activation, chosen=_chosen(blocks.SiLU)
    ),
    "activation_behind_norm": Layer(
        forms=tuple(SILU_FUNCTIONS),
        build=_activation_behind_norm,
        chosen=_chosen(blocks.SiLU),
    ),
    "activation_behind_convolution": Layer(
        forms=tuple(SILU_FUNCTIONS),
        build=_activation_behind_convolution,
        chosen=_chosen(blocks.SiLU),
    ),
    "group_norm": Layer(
        forms=tuple(GROUP_NORM_FUNCTIONS),
        build=_group_norm,
        chosen=_chosen(blocks.GroupNorm),
    ),
    "spatial_attention": Layer(
        forms=tuple(SPATIAL_ATTENTION_FUNCTIONS),
        build=_spatial_attention,
        chosen=_chosen(blocks.SpatialAttention),
    ),
    "cross_attention": Layer(
        forms=tuple(CROSS_ATTENTION_FUNCTIONS),
        build=_cross_attention,
        chosen=_chosen(blocks.CrossAttention),
    ),
    "temporal_conv": Layer(
        forms=tuple(TEMPORAL_CONV_FUNCTIONS),
        build=_temporal_conv,
        chosen=_chosen(blocks.TemporalConv),
    ),
    "temporal_attention": Layer(
        forms=tuple(TEMPORAL_ATTENTION_FUNCTIONS),
        build=_temporal_attention,
        chosen=_chosen(blocks.TemporalAttention),
    ),
    "matrix_product": Layer(forms=("probabilities first", "values first"), build=_matrix_product),
    "convolution": Layer(forms=("1x1", "3x3"), build=_convolution),
    "constant_folding": Layer(forms=("folded", "as exported"), build=_folding),
}
"""Every layer that is measured. The last three are no layers but facts beside them: which operand
of a matrix product the HTP keeps in 16 bits, what a 3x3 convolution costs on a small grid, and what
weights cost that the exporter leaves as slices of a constant (in the form `shift_concat`)."""


LARGE_LAYERS: dict[str, Layer] = {
    "svd_residual": Layer(
        forms=tuple(FRAME_FUNCTIONS), build=_svd_residual, chosen=_chosen(ResBlock)
    ),
    "svd_feed_forward": Layer(
        forms=tuple(POSITION_FUNCTIONS), build=_svd_feed_forward, chosen=_chosen(FeedForward)
    ),
    "svd_self_attention": Layer(
        forms=("batched", "heads_split"), build=_svd_attention, chosen=_chosen(SelfAttention)
    ),
    "svd_frame_attention": Layer(
        forms=("unrolled",), build=_svd_frame_attention, chosen=_chosen(FrameAttention)
    ),
}
"""Layers of Stable Video Diffusion, whose forms differ at full size alone (14x320x32x64)."""


def build_subject(layer: str, form: str, size: Size) -> Subject:
    """Build the network of one form with its inputs; equal for all forms of a layer."""
    torch.manual_seed(0)
    network = {**LAYERS, **LARGE_LAYERS}[layer].build(form, size).eval()
    generator = torch.Generator().manual_seed(1)
    inputs = tuple(_inputs(layer, size, generator) for _ in range(CALIBRATION_INPUTS))
    return Subject(network=network, inputs=inputs, fold_constants=form != "as exported")


def _inputs(layer: str, size: Size, generator: torch.Generator) -> dict[str, Tensor]:
    shape = (size.frames, size.channels, size.height, size.width)
    x = torch.randn(shape, generator=generator)
    if "norm" in layer:  # a normalisation of what is normal already would show nothing
        x = x * torch.linspace(0.5, 2, size.channels)[:, None, None]
        x = x + torch.linspace(-1, 1, size.channels)[:, None, None]
    if layer == "matrix_product":
        positions = size.height * size.width
        logits = torch.randn(size.heads, positions, positions, generator=generator)
        values = torch.randn(size.heads, positions, blocks.HEAD_DIM, generator=generator)
        return {"probabilities": (QUERY_GAIN**2 * logits).softmax(dim=-1), "values": values}
    if layer == "cross_attention":
        context = torch.randn(1, CONTEXT_LENGTH, CONTEXT_DIM, generator=generator)
        return {"x": x, "context": context}
    return {"x": x}
