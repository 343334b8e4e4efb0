"""The bank of the image-to-video model: clips drawn and encoded once, with their first frames.

What each clip begins with is kept beside it, so that a bank can be checked against what would be
drawn now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray

from mvsdk._staging import replacing
from mvsdk_export.distill.animator.clips import AnimatedClips, Start
from mvsdk_export.distill.autoencoder import to_network
from mvsdk_export.distill.captions import BACKGROUNDS
from mvsdk_export.distill.options import TrainingError
from mvsdk_export.networks.vae import Autoencoder

BANK_BATCH = 64
"""Clips that are drawn together when a bank is made; it decides which ones."""

_ARRAYS = ("latents", "pictures", "starts")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBank:
    """Encoded clips, and what they begin with."""

    latents: NDArray[np.float16]
    """(N, F, C, h, w)."""
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


def save_clip_bank(parts: Sequence[ClipBank], path: Path) -> None:
    """Write a bank, whole or not at all."""
    arrays = {
        name: np.ascontiguousarray(np.concatenate([getattr(part, name) for part in parts]))
        for name in _ARRAYS
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        safetensors.numpy.save_file(arrays, temporary)


def read_clip_bank(path: Path) -> ClipBank:
    """Read a bank that `save_clip_bank` wrote.

    Raises:
        TrainingError: If the file is damaged.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        return ClipBank(**{name: arrays[name] for name in _ARRAYS})
    except (safetensors.SafetensorError, OSError, KeyError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; remove it and run again") from exc


def check_clip_bank(
    bank: ClipBank, clips: AnimatedClips, autoencoder: Autoencoder, *, count: int, seed: int
) -> None:
    """Check by its length and its first clips that `draw_clip_bank` would make this bank.

    Raises:
        TrainingError: If it is of other clips or of another autoencoder.
    """
    rng = np.random.default_rng(seed)
    starts = [clips.sample_start(rng) for _ in range(min(BANK_BATCH, count))]
    first = _encode(clips, autoencoder, starts[:4])
    if (
        len(bank.starts) != count
        or not np.array_equal(bank.starts[: len(starts)], _to_rows(starts))
        or not np.array_equal(bank.pictures[: len(first.pictures)], first.pictures)
        or bank.latents.shape[1:] != first.latents.shape[1:]
        or not np.allclose(bank.latents[: len(first.latents)], first.latents, rtol=4e-3, atol=2e-2)
    ):
        raise TrainingError(
            f"the bank of {len(bank.starts)} clips is of other clips, subjects or another "
            f"autoencoder than the {count} clips asked for; choose another work folder, or remove "
            "the bank and what was trained on it"
        )


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
