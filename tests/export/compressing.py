"""A tiny denoiser to compress: what it says, what it costs, and each transform of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from comparing import lively
from tiny_mobilevd import TINY_UNET
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mvsdk_export.compress.folding import fold_cross_attention
from mvsdk_export.compress.frames import halve_frames
from mvsdk_export.compress.funnels import add_funnels, merge_funnels
from mvsdk_export.compress.pruning import prune_temporal
from mvsdk_export.families.svd.transformer import SingleTokenCrossAttention
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.layers.transformer import SelfAttention

# The feature has another width than any layer: what is folded has another shape then.
SMALL = replace(TINY_UNET, cross_attention_dim=12)
CLIPS, FRAMES, SIZE = 2, SMALL.num_frames, (8, 16)  # two positions at the bottom
BLOCKS = SMALL.temporal_block_count
Transform = Callable[[SVDUNet], tuple[SVDUNet, Any]]


def build_unet() -> SVDUNet:
    """Return the tiny denoiser with random weights, norms included."""
    torch.manual_seed(0)
    return lively(SVDUNet(SMALL))


def make_inputs(clips: int = CLIPS) -> tuple[Tensor, ...]:
    """Return what the tiny denoiser takes, always the same."""
    draw = torch.Generator().manual_seed(1)
    return (
        torch.randn(clips * FRAMES, SMALL.in_channels, *SIZE, generator=draw),
        torch.rand(clips, generator=draw),
        torch.randn(clips, 1, SMALL.cross_attention_dim, generator=draw),
        torch.rand(clips, 3, generator=draw) * 10,
    )


@torch.no_grad()
def run_unet(network: SVDUNet, inputs: Sequence[Tensor] | None = None) -> Tensor:
    return network(*(inputs or make_inputs()))


def run_flops(network: SVDUNet) -> int:
    """Count the FLOPs of one evaluation for one clip by running it."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, SelfAttention | SingleTokenCrossAttention):
            module.implementation = "batched"  # the fused kernel of CPUs is not counted
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*make_inputs(clips=1))
    return counter.get_total_flops()


def fold(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    return fold_cross_attention(unet, latent_size=SIZE)


def halve(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    return halve_frames(unet, latent_size=SIZE)


def prune(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    return prune_temporal(unet, 5, latent_size=SIZE)


def funnel(unet: SVDUNet) -> tuple[SVDUNet, Any]:
    wide, report = add_funnels(unet, 0.5, "all", latent_size=SIZE)
    return merge_funnels(wide), report


TRANSFORMS: dict[str, Transform] = {
    "fold": fold,
    "frames": halve,
    "prune": prune,
    "funnels": funnel,
}
