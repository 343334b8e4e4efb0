"""Which form of its layers a network has on which target.

The forms that layers name as theirs on an NPU were found on Qualcomm's HTP at w8a16
(docs/npu_forms.md). Where floats stay floats, weights need no second term. The HTP in float16 is
for the rest as it is in integers, but for its sigmoids; elsewhere a sigmoid is a sigmoid, and what
the HTP's tiles like is neither here nor there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

from mvsdk_export.networks import text_encoder, transformer
from mvsdk_export.networks.blocks import (
    GroupNorm,
    PreciseProjection,
    Projection,
    SiLU,
    set_forms_,
)
from mvsdk_export.networks.svd.added_values import AddedSinusoids
from mvsdk_export.networks.svd.blocks import TokenProjection
from mvsdk_export.networks.svd.clip_vision import ClipAttention, QuickGelu
from mvsdk_export.networks.svd.graphs import AntialiasedResize
from mvsdk_export.networks.svd.transformer import SelfAttention, SingleTokenCrossAttention

Attention = Literal["fused", "split_einsum"]
Forms = Mapping[type[nn.Module], str]

ATTENTIONS: tuple[type[nn.Module], ...] = (
    SelfAttention,
    SingleTokenCrossAttention,
    ClipAttention,
    text_encoder.Layer,
    transformer.Layer,
)
"""Layers that attend between tokens."""

FLOAT_FORMS: Forms = {
    SiLU: "sigmoid",
    QuickGelu: "sigmoid",
    Projection: "matmul",
    TokenProjection: "matmul",
    PreciseProjection: "matmul",
    AntialiasedResize: "matmul",
}
"""Forms of targets that compute in floating point; other layers have those of the HTP."""


HTP_FLOAT16_FORMS: Forms = {
    SiLU: "halves",
    QuickGelu: "halves",
    PreciseProjection: "conv2d",
    AntialiasedResize: "conv2d",
}
"""Forms of the HTP in float16 where they are others than those at w8a16."""


def set_htp_float16_forms_(network: nn.Module) -> nn.Module:
    """Switch the layers of a network to the forms of the HTP in float16, in place.

    Args:
        network: In the forms of training.

    Returns:
        The network.
    """
    return set_forms_(set_forms_(network), HTP_FLOAT16_FORMS)


def set_coreml_forms_(network: nn.Module, attention: Attention = "fused") -> nn.Module:
    """Switch the layers of a network to the forms of Core ML packages, in place.

    Args:
        network: In the forms of training.
        attention: "fused" is Core ML's own operator from iOS 18 on; "split_einsum" keeps channels
            first and unrolls the heads, as Apple advises for the Neural Engine of older phones.

    Returns:
        The network.
    """
    set_forms_(network)
    return set_forms_(network, {**FLOAT_FORMS, **dict.fromkeys(ATTENTIONS, attention)})


def set_xnnpack_forms_(network: nn.Module) -> nn.Module:
    """Switch the layers of a network to the forms of ExecuTorch programs for XNNPACK, in place.

    It has no normalisation: means and products make one of groups. Sines of numbers that come
    beside a picture are exact in float32, without tables.

    Args:
        network: In the forms of training.

    Returns:
        The network.
    """
    set_forms_(network)
    own: Forms = {GroupNorm: "moments", AddedSinusoids: "angles"}
    return set_forms_(network, {**FLOAT_FORMS, **dict.fromkeys(ATTENTIONS, "batched"), **own})
