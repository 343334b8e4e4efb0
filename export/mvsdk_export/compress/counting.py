"""Operations of many denoisers that differ in a few blocks: each distinct block is counted once.

A table of compressed networks needs seconds so, where `reports.measure_costs` needs one for each.
That one runs every block, as it counts a part of each: the temporal one, which pruning takes out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mvsdk_export.compress.rebuilding import build_empty
from mvsdk_export.compress.reports import meta_inputs
from mvsdk_export.families.svd.config import SVDUNetConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetCount:
    """What one evaluation of a denoiser for one clip takes."""

    parameters: int
    flops: int
    by_module: Mapping[str, int]
    """Module path -> FLOPs, of spatio-temporal blocks and of every module outside of them."""


@cache
def count_unet(config: SVDUNetConfig, latent_size: tuple[int, int]) -> UNetCount:
    """Count parameters and FLOPs on the meta device, in the forms that training uses.

    Args:
        config: The network; its `num_frames` is the length of the clip.
        latent_size: Height and width of the latents.
    """
    unet = build_empty(config).eval()
    parameters = sum(weight.numel() for weight in unet.parameters())
    counter = FlopCounterMode(display=False)
    blocks = _Blocks(counter)
    for path, block in unet.temporal_blocks().items():
        block.forward = blocks.counted(path, block)
    with torch.no_grad(), counter:
        unet(*meta_inputs(config, latent_size))
    inside = tuple(f"{path}." for path in blocks.by_path)
    modules = {
        name.partition(".")[2]: sum(operators.values())
        for name, operators in counter.get_flop_counts().items()
        if "." in name
    }
    outside = {path: flops for path, flops in modules.items() if not path.startswith(inside)}
    return UNetCount(
        parameters=parameters,
        flops=counter.get_total_flops() - blocks.executed + sum(blocks.by_path.values()),
        by_module=outside | blocks.by_path,
    )


class _Blocks:
    """Blocks of one network, run only where no block like them was run before."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.by_path: dict[str, int] = {}
        self.executed = 0
        """FLOPs of the blocks that did run, which the counter has seen."""
        self._counter = counter

    def counted(self, path: str, block: nn.Module) -> Callable[..., Tensor]:
        """Return what takes the place of a block's `forward`."""
        forward = block.forward
        structure = (type(block), *((name, w.shape) for name, w in block.named_parameters()))

        def run(*arguments: Tensor | int) -> Tensor:
            shapes = (a.shape if isinstance(a, Tensor) else a for a in arguments)
            key: Hashable = (structure, *shapes)
            if key not in _COUNTED:
                before = self._counter.get_total_flops()
                shape = forward(*arguments).shape
                _COUNTED[key] = self._counter.get_total_flops() - before, shape
                self.executed += _COUNTED[key][0]
            self.by_path[path], shape = _COUNTED[key]
            return torch.empty(shape, device="meta")

        return run


_COUNTED: dict[Hashable, tuple[int, torch.Size]] = {}
"""Weights of a block and shapes of its inputs -> FLOPs, and shape of its output."""
