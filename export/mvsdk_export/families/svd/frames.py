"""Fewer frames inside a network: operators that halve the frames of a clip and restore them.

Frames are picked along the batch axis, which every layout of an NPU keeps outermost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Operators that halve: x (B * F, C, H, W), F -> (B * ceil(F / 2), C, H, W)


def down_mean(x: Tensor, num_frames: int) -> Tensor:
    """Average every pair of frames; an odd last frame stays as it is."""
    second = _picked(x, num_frames, [min(at + 1, num_frames - 1) for at in range(0, num_frames, 2)])
    return (down_first(x, num_frames) + second) * 0.5


def down_first(x: Tensor, num_frames: int) -> Tensor:
    """Keep the first frame of every pair."""
    return _picked(x, num_frames, list(range(0, num_frames, 2)))


# Operators that restore: x (B * ceil(F / 2), C, H, W), F -> (B * F, C, H, W)


def up_repeat(x: Tensor, num_frames: int) -> Tensor:
    """Repeat every frame."""
    return _picked(x, (num_frames + 1) // 2, [at // 2 for at in range(num_frames)])


def up_linear(x: Tensor, num_frames: int) -> Tensor:
    """Put the mean of its neighbours between two frames; the last one is repeated."""
    half = (num_frames + 1) // 2
    following = _picked(x, half, [min((at + 1) // 2, half - 1) for at in range(num_frames)])
    return (up_repeat(x, num_frames) + following) * 0.5


def _picked(x: Tensor, num_frames: int, places: list[int]) -> Tensor:
    """Return the frames at some places of every clip of `num_frames` frames."""
    starts = range(0, x.shape[0], num_frames)
    indices = [start + place for start in starts for place in places]
    return x.index_select(0, torch.tensor(indices, device=x.device))


FRAME_DOWN: dict[str, Callable[[Tensor, int], Tensor]] = {"mean": down_mean, "first": down_first}
FRAME_UP: dict[str, Callable[[Tensor, int], Tensor]] = {"repeat": up_repeat, "linear": up_linear}
