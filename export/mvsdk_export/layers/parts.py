"""The ways to run a layer that treats every frame, or every token, alone: at once or in parts.

The maths is equal, as in implementations.py. In parts, what is between the first and the last
operator of the layer has room in an NPU's memory, and does not go through main memory
(docs/npu_forms.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Layer = Callable[[Tensor], Tensor]

MAP_BYTES = 9 << 19
"""Above this, in 16-bit values, the widest map of a layer is made in parts.

An HTP of a phone has 8 MiB of memory on the chip. Feed-forward layers stayed in it with maps of
4.4 MiB, and spilled those of 8.8 MiB.
"""
_VALUE_BYTES = 2

# A layer of frames: x (N, C, H, W), layer, channels of its widest map -> what it makes


def frames_whole(x: Tensor, layer: Layer, widest: int) -> Tensor:
    """Run all frames at once."""
    return layer(x)


def frames_apart(x: Tensor, layer: Layer, widest: int) -> Tensor:
    """Run frame after frame, where a frame has room on the chip and all frames have none."""
    frame_bytes = _VALUE_BYTES * widest * x.shape[2] * x.shape[3]
    if x.shape[0] * frame_bytes <= MAP_BYTES or frame_bytes > MAP_BYTES:
        return layer(x)
    return torch.cat([layer(frame) for frame in x.split(1)])


# A layer of tokens: x (N, P, C), layer, channels of its widest map -> what it makes


def positions_whole(x: Tensor, layer: Layer, widest: int) -> Tensor:
    """Run all positions at once."""
    return layer(x)


def positions_apart(x: Tensor, layer: Layer, widest: int) -> Tensor:
    """Run some positions of all frames after the other, as few equal parts as have room."""
    n, positions, _ = x.shape
    position_bytes = _VALUE_BYTES * n * widest
    counts = (count for count in range(1, positions + 1) if positions % count == 0)
    fitting = (count for count in counts if positions // count * position_bytes <= MAP_BYTES)
    parts = next(fitting, positions)
    if parts == 1:
        return layer(x)
    return torch.cat([layer(part) for part in x.chunk(parts, dim=1)], dim=1)


FRAME_FUNCTIONS: dict[str, Callable[[Tensor, Layer, int], Tensor]] = {
    "whole": frames_whole,
    "frames": frames_apart,
}
POSITION_FUNCTIONS: dict[str, Callable[[Tensor, Layer, int], Tensor]] = {
    "whole": positions_whole,
    "positions": positions_apart,
}
