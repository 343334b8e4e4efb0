"""Implementations of the layers of Stable Video Diffusion, as in layers/implementations.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mvsdk.manifest.usual import MAX_CLIP_FPS, MAX_MOTION
from mvsdk_export.layers.embeddings import interpolated_sinusoids, sinusoids

# Embedding of what is told beside a picture: added_time_ids (B, 3), width of each ->
# (B, 3 * width)


def added_angles(values: Tensor, dim: int) -> Tensor:
    """Compute every angle.

    In half precision those of motion bucket 255 are an eighth of a radian apart, and a sine was off
    by up to 0.17 on the HTP's emulator.
    """
    return sinusoids(values.flatten(), dim).reshape(values.shape[0], -1)


def added_tables(values: Tensor, dim: int) -> Tensor:
    """Interpolate rows of tables, which are known before anything runs.

    A motion bucket is a whole number and meets one row, so it is exact in half precision as well.
    Frames per second have a row each quarter: between two of them the error is below 1 / 128, what
    half precision rounds 16 and more to. Noise goes up to 1, where angles are fine as they are.
    """
    fps, motion, noise = (values[:, index : index + 1] for index in range(3))
    parts = (
        interpolated_sinusoids(fps, int(MAX_CLIP_FPS) - 1, 4, dim),
        interpolated_sinusoids(motion, int(MAX_MOTION), 1, dim),
        sinusoids(noise.flatten(), dim),
    )
    return torch.cat(parts, dim=1)


ADDED_FUNCTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "angles": added_angles,
    "tables": added_tables,
}
