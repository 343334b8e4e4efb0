"""Fewer frames inside a network: operators that halve the frames of a clip and restore them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Operators that halve: x (B * F, C, H, W), F -> (B * ceil(F / 2), C, H, W)


def _pairs(x: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Return the first and the second frame of every pair; an odd last frame pairs with itself."""
    if x.shape[0] == num_frames:
        first, second = x[0::2], x[1::2]
        return first, second if num_frames % 2 == 0 else torch.cat([second, x[-1:]])
    clips = x.reshape(-1, num_frames, x.shape[1], x.shape[2] * x.shape[3])
    first, second = clips[:, 0::2], clips[:, 1::2]
    if num_frames % 2:
        second = torch.cat([second, clips[:, -1:]], dim=1)
    return first.reshape(-1, *x.shape[1:]), second.reshape(-1, *x.shape[1:])


def down_mean(x: Tensor, num_frames: int) -> Tensor:
    """Average every pair of frames."""
    first, second = _pairs(x, num_frames)
    return (first + second) * 0.5


def down_first(x: Tensor, num_frames: int) -> Tensor:
    """Keep the first frame of every pair."""
    return _pairs(x, num_frames)[0]


# Operators that restore: x (B * ceil(F / 2), C, H, W), F -> (B * F, C, H, W)


def up_repeat(x: Tensor, num_frames: int) -> Tensor:
    """Repeat every frame."""
    return _interleaved(x, x, num_frames)


def up_linear(x: Tensor, num_frames: int) -> Tensor:
    """Keep every frame and put the mean of its neighbours between two; the last is repeated."""
    half = (num_frames + 1) // 2
    if x.shape[0] == half:
        following = torch.cat([x[1:], x[-1:]])
    else:
        clips = x.reshape(-1, half, x.shape[1], x.shape[2] * x.shape[3])
        following = torch.cat([clips[:, 1:], clips[:, -1:]], dim=1).reshape(x.shape)
    return _interleaved(x, (x + following) * 0.5, num_frames)


def _interleaved(first: Tensor, second: Tensor, num_frames: int) -> Tensor:
    """Alternate the frames of two clips of ceil(F / 2) frames, cut to F frames."""
    shape, half = first.shape, (num_frames + 1) // 2
    size = shape[1] * shape[2] * shape[3]
    pairs = torch.stack([first.reshape(-1, half, size), second.reshape(-1, half, size)], dim=2)
    clips = pairs.reshape(-1, 2 * half, size)[:, :num_frames]
    return clips.reshape(-1, *shape[1:])


FRAME_DOWN: dict[str, Callable[[Tensor, int], Tensor]] = {"mean": down_mean, "first": down_first}
FRAME_UP: dict[str, Callable[[Tensor, int], Tensor]] = {"repeat": up_repeat, "linear": up_linear}
