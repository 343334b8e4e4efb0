"""What clips that begin with a picture are worth, measured against the drawn ones.

A picture and a motion bucket have one right clip, so that every measure is a function of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from mvsdk.noise import PICTURE_STREAM, initial_latents
from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.svd.clip_vision import ClipVisionEncoder
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.training.animator.clips import TRAVEL, AnimatedClips, Move, Start
from mvsdk_export.training.animator.networks import (
    ORDINARY_AUGMENTATION,
    encode_pictures,
    time_ids,
)
from mvsdk_export.training.measures import (
    Frames,
    change_psnr_db_of,
    decode_latents,
    direction_of,
    psnr_db_of,
    reconstruct,
    way_of,
)
from mvsdk_export.training.methods.autoencoder import to_network
from mvsdk_export.training.methods.edm import Network
from mvsdk_export.training.methods.one_step import Conditions, predict_with

Animate = Callable[[Frames, Sequence[int], Sequence[int]], Frames]
"""(N pictures (N, H, W, 3), N motion buckets, N seeds) -> clips (N, F, H, W, 3)."""

Sample = Callable[[Network, Tensor], Tensor]
"""(network under its conditions, unit noise `(B, F, C, h, w)`) -> clean latents like it."""

BATCH = 16
"""Clips that are made together."""

STILL_WAY = TRAVEL / 4
"""A subject that goes less than this, as a fraction of the frame, stays where it is."""

BUCKETS: tuple[int, ...] = (0, 127, 255)
"""Motion buckets at which ways are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipQuality:
    """How well a set of clips follows from its pictures."""

    clips: int
    psnr_db_median: float
    """Against the drawn clip, peak 255."""
    psnr_db_p10: float
    """A tenth of the clips is below this."""
    change_psnr_db: float
    """Of the differences between neighbouring frames against those of the drawn clips; median."""
    first_frame_psnr_db: float
    """Of first frames against the pictures; median."""
    facing_accuracy: float | None
    """Share of subjects that go where they look, of those that do to a side; None if none does."""
    move_accuracy: float
    """Share of clips that are nearest to the drawn clip with their own move, of all moves."""

    def to_json(self) -> dict[str, float | None]:
        """Return the fields, rounded to what they mean."""
        return {
            name: None if value is None else round(value, 4) for name, value in asdict(self).items()
        }


def animate_with(
    image_encoder: ClipVisionEncoder, unet: SVDUNet, autoencoder: Autoencoder, sample: Sample
) -> Animate:
    """Return what makes clips as `Pipeline.animate` would with a float32 bundle, in batches.

    Args:
        image_encoder: Trained, in evaluation mode, as are the others.
        unet: Denoiser.
        autoencoder: Encodes pictures, decodes clips.
        sample: Turns noise into latents.
    """

    @torch.no_grad()
    def animate(pictures: Frames, buckets: Sequence[int], seeds: Sequence[int]) -> Frames:
        x = to_network(pictures)
        strengths = torch.full((len(x),), ORDINARY_AUGMENTATION)
        noise = _noise(seeds, x.shape[1:], stream=PICTURE_STREAM)
        image_latents = autoencoder.encode(x + ORDINARY_AUGMENTATION * noise)
        conditions = Conditions(
            features=encode_pictures(image_encoder, x)[:, None],
            image_latents=image_latents,
            added_time_ids=time_ids(np.array(buckets, np.float32), strengths),
        )
        shape = (unet.config.num_frames, *image_latents.shape[1:])
        latents = sample(predict_with(unet, conditions), _noise(seeds, shape))
        return decode_latents(autoencoder, latents.numpy())

    def animate_all(pictures: Frames, buckets: Sequence[int], seeds: Sequence[int]) -> Frames:
        parts = [slice(start, start + BATCH) for start in range(0, len(pictures), BATCH)]
        return np.concatenate([animate(pictures[i], buckets[i], seeds[i]) for i in parts])

    return animate_all


def _noise(seeds: Sequence[int], shape: Sequence[int], *, stream: int = 0) -> Tensor:
    return torch.from_numpy(np.stack([initial_latents(x, shape, stream=stream) for x in seeds]))


def measure_animation(
    generated: Frames, starts: Sequence[Start], clips: AnimatedClips
) -> ClipQuality:
    """Measure clips against drawn ones.

    Args:
        generated: (N, F, H, W, 3) uint8 RGB.
        starts: What each of them begins with.
        clips: Draws the same.
    """
    drawn = clips.render(starts)
    pairs = list(zip(generated, drawn, strict=True))
    psnr_db = [psnr_db_of(x, y) for x, y in pairs]
    facing = [
        direction_of(x, STILL_WAY) == clips.move(start)
        for x, start in zip(generated, starts, strict=True)
        if clips.faces(start)
    ]
    moved = [_nearest_move(x, start, clips) for x, start in zip(generated, starts, strict=True)]
    return ClipQuality(
        clips=len(starts),
        psnr_db_median=float(np.median(psnr_db)),
        psnr_db_p10=float(np.percentile(psnr_db, 10)),
        change_psnr_db=float(np.median([change_psnr_db_of(x, y) for x, y in pairs])),
        first_frame_psnr_db=float(np.median([psnr_db_of(x[:1], y[:1]) for x, y in pairs])),
        facing_accuracy=float(np.mean(facing)) if facing else None,
        move_accuracy=float(
            np.mean([m == clips.move(s) for m, s in zip(moved, starts, strict=True)])
        ),
    )


def _nearest_move(frames: Frames, start: Start, clips: AnimatedClips) -> Move:
    """Return the move with which the drawn clip of a start has the smallest squared error."""
    moves: tuple[Move, ...] = get_args(Move)
    drawn = clips.render([start] * len(moves), moves)
    errors = np.square(drawn.astype(np.float32) - frames).mean(axis=(1, 2, 3, 4))
    return moves[int(np.argmin(errors))]


def measure_ways(
    animate: Animate, starts: Sequence[Start], clips: AnimatedClips, seeds: Sequence[int]
) -> dict[int, float]:
    """Measure how far subjects go to where they look, by motion bucket.

    Args:
        animate: Makes the clips.
        starts: What they begin with; those whose subject looks nowhere are left out.
        clips: Draws the pictures.
        seeds: One per start.

    Returns:
        Motion bucket -> mean way in pixels, from the first frame to the last; empty if all look
        nowhere.
    """
    chosen = [(s, seed) for s, seed in zip(starts, seeds, strict=True) if clips.faces(s)]
    if not chosen:
        return {}
    pictures = clips.render([start for start, _ in chosen])[:, 0]
    ways: dict[int, float] = {}
    for bucket in BUCKETS:
        frames = animate(pictures, [bucket] * len(chosen), [seed for _, seed in chosen])
        ways[bucket] = float(
            np.mean(
                [_way_ahead(x, clips.move(s)) for x, (s, _) in zip(frames, chosen, strict=True)]
            )
        )
    return ways


def drawn_ways(
    starts: Sequence[Start], clips: AnimatedClips, autoencoder: Autoencoder
) -> dict[int, float]:
    """Measure the same of drawn clips, through the autoencoder."""

    def draw(pictures: Frames, buckets: Sequence[int], seeds: Sequence[int]) -> Frames:
        del pictures
        chosen = [replace(starts[i], bucket=b) for i, b in zip(seeds, buckets, strict=True)]
        return reconstruct(autoencoder, clips.render(chosen))

    return measure_ways(draw, starts, clips, range(len(starts)))


def _way_ahead(frames: Frames, move: Move) -> float:
    """Return how far a subject goes to where it looks, pixels."""
    way = way_of(frames)
    if way is None:
        return 0.0
    return way[0] * frames.shape[2] * (1.0 if move == "right" else -1.0)
