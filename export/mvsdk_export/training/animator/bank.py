"""The bank of the image-to-video model: clips, their first frames, and what they begin with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.training.animator.clips import AnimatedClips, Start
from mvsdk_export.training.data.banks import BANK_BATCH, Bank
from mvsdk_export.training.data.captions import BACKGROUNDS
from mvsdk_export.training.methods.autoencoder import to_network


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBank(Bank):
    """Encoded clips, and what they begin with."""

    pictures: NDArray[np.uint8]
    """(N, H, W, 3) RGB: first frames."""
    starts: NDArray[np.float32]
    """(N, 10): subject, background, mirrored, bucket, colour, chances."""

    @property
    def buckets(self) -> NDArray[np.float32]:
        """Motion buckets of the clips, (N,)."""
        return self.starts[:, 3]


def draw_clip_bank(
    clips: AnimatedClips, autoencoder: Autoencoder, *, count: int, seed: int
) -> Iterator[ClipBank]:
    """Draw and encode clips.

    Args:
        clips: Draws them.
        autoencoder: Encodes them.
        count: Number of clips.
        seed: Decides what they begin with.

    Yields:
        The bank in parts of at most `BANK_BATCH` clips.
    """
    rng = np.random.default_rng(seed)
    for first in range(0, count, BANK_BATCH):
        starts = [clips.sample_start(rng) for _ in range(min(BANK_BATCH, count - first))]
        yield _encode(clips, autoencoder, starts)


@torch.no_grad()
def _encode(clips: AnimatedClips, autoencoder: Autoencoder, starts: Sequence[Start]) -> ClipBank:
    frames = clips.render(starts)
    encoded = autoencoder.encode(to_network(frames.reshape(-1, *frames.shape[2:])))
    return ClipBank(
        latents=encoded.half().numpy().reshape(*frames.shape[:2], *encoded.shape[1:]),
        pictures=frames[:, 0],
        starts=_to_rows(starts),
    )


def _to_rows(starts: Sequence[Start]) -> NDArray[np.float32]:
    names = list(BACKGROUNDS)
    rows = [
        (x.subject, names.index(x.background), x.mirrored, x.bucket, *x.colour, *x.chances)
        for x in starts
    ]
    return np.array(rows, np.float32)
