"""What is measured of a clip: pure functions of its frames."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mvsdk.sampling import Latents
from mvsdk_export.families.autoencoder import Autoencoder, FrameDecoder
from mvsdk_export.training.data.captions import BACKGROUNDS
from mvsdk_export.training.methods.autoencoder import to_network

Frames = NDArray[np.uint8]
"""(F, H, W, 3) RGB, or (N, F, H, W, 3) for N clips."""

FOREGROUND_DISTANCE = 40
"""A pixel belongs to the subject when a channel is further than this from the background."""

STILL_WAY = 0.12
"""A subject that goes less than this, as a fraction of the frame, stays where it is. Asked to move,
it goes 0.44 of it; what leaves the frame makes its visible half go at least 0.2."""

ZOOM_GROWTH = 0.4
"""A subject zooms when its side changes by more than this, as a share of its mean, over a clip.
Asked to, it changes by 0.9."""


@torch.no_grad()
def decode_latents(autoencoder: Autoencoder, latents: Latents) -> Frames:
    """Map latents `(N, F, C, h, w)` to clips `(N, F, H, W, 3)` uint8, rounded half to even."""
    frames = FrameDecoder(autoencoder)(torch.from_numpy(latents).flatten(0, 1))
    pixels = (frames * 255).round().to(torch.uint8).numpy()
    return pixels.reshape(*latents.shape[:2], *pixels.shape[1:])


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, clips: Frames) -> Frames:
    """Encode and decode clips `(N, F, H, W, 3)`: the best that a denoiser could reach."""
    latents = autoencoder.encode(to_network(clips.reshape(-1, *clips.shape[2:])))
    return decode_latents(
        autoencoder, latents.reshape(*clips.shape[:2], *latents.shape[1:]).numpy()
    )


def change_psnr_db_of(frames: Frames, reference: Frames) -> float:
    """Return the peak signal-to-noise ratio of the changes from frame to frame, peak 255."""
    changes, wanted = (np.diff(x.astype(np.float64), axis=0) for x in (frames, reference))
    return float(10 * np.log10(255**2 / max(np.mean((changes - wanted) ** 2), 255**2 * 1e-10)))


def psnr_db_of(frames: Frames, reference: Frames) -> float:
    """Return the peak signal-to-noise ratio of two clips, peak 255; at most 100 dB."""
    error = np.mean((frames.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(255**2 / max(error, 255**2 * 1e-10)))


def border_colour(frames: Frames) -> NDArray[np.float64]:
    """Return the median colour of the outermost pixels of all frames, RGB."""
    top_bottom = frames[:, [0, -1]].reshape(-1, 3)
    sides = frames[:, :, [0, -1]].reshape(-1, 3)
    return np.median(np.concatenate([top_bottom, sides]), axis=0)


def background_of(frames: Frames) -> str:
    """Return the named colour that is nearest to the border of a clip."""
    colour = border_colour(frames)
    return min(BACKGROUNDS, key=lambda name: float(np.sum((colour - BACKGROUNDS[name]) ** 2)))


def way_of(frames: Frames) -> tuple[float, float] | None:
    """Return how far the subject of a clip goes right and down, over the sides of the frame.

    The way is that of a straight line through the centres of the foreground over time. None if less
    than two frames show anything.
    """
    count, height, width, _ = frames.shape
    mask = _foreground(frames)
    seen = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(seen) < 2:
        return None
    centres = np.array([[np.mean(axis) for axis in np.nonzero(mask[frame])] for frame in seen])
    slopes = np.polyfit(seen, centres / (height, width), 1)[0]  # (down, right) per frame
    down, right = slopes * (count - 1)
    return float(right), float(down)


def direction_of(frames: Frames, still_way: float = STILL_WAY) -> str:
    """Return where the subject of a clip goes: one of `captions.DIRECTIONS`, or "still".

    Args:
        frames: The clip.
        still_way: A shorter way is none, as a fraction of the frame.
    """
    way = way_of(frames)
    if way is None or max(map(abs, way)) < still_way:
        return "still"
    right, down = way
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"


def zoom_of(frames: Frames) -> str:
    """Return "zoom in" where the subject of a clip grows, "zoom out" where it shrinks, or "still".

    Its side is the root of its area; how that changes is a straight line through it over time.
    """
    sides = np.sqrt(_foreground(frames).sum(axis=(1, 2)))
    if sides.mean() == 0:
        return "still"
    growth = np.polyfit(np.arange(len(sides)), sides, 1)[0] * (len(sides) - 1) / sides.mean()
    if abs(growth) < ZOOM_GROWTH:
        return "still"
    return "zoom in" if growth > 0 else "zoom out"


def _foreground(frames: Frames) -> NDArray[np.bool_]:
    """Return which pixels belong to the subject, `(F, H, W)`."""
    return np.abs(frames - border_colour(frames)).max(axis=-1) > FOREGROUND_DISTANCE
