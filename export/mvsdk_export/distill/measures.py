"""What generated clips are worth, measured against drawn clips of the same scenes.

Every measure of a clip is a pure function of its frames. Clips are generated as the runtime does:
its noise, its schedule, its sampler; only the networks are PyTorch's, and clips run in batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mvsdk.noise import initial_latents
from mvsdk.sampling import Latents, sample_flow_euler
from mvsdk.schedules import flow_sigmas, flow_timesteps
from mvsdk.tokenizer import WordPiece
from mvsdk_export.distill.autoencoder import to_network
from mvsdk_export.distill.captions import BACKGROUNDS, DIRECTIONS, MOTIONS, Scene
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.denoiser import encode_captions
from mvsdk_export.networks.text_encoder import TextEncoder
from mvsdk_export.networks.transformer import SpatioTemporalTransformer
from mvsdk_export.networks.vae import PATCH, Autoencoder, FrameDecoder

Frames = NDArray[np.uint8]
"""(F, H, W, 3) RGB, or (N, F, H, W, 3) for N clips."""

FOREGROUND_DISTANCE = 40
"""A pixel belongs to the subject when a channel is further than this from the background."""

STILL_WAY = 0.12
"""A subject that goes less than this, as a fraction of the frame, stays where it is. Asked to move,
it goes 0.45 of it; what leaves the frame makes its visible half go at least 0.2."""

BATCH = 16
"""Clips that are generated together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """All that turns a prompt into a clip."""

    tokenizer: WordPiece
    text_encoder: TextEncoder
    denoiser: SpatioTemporalTransformer
    autoencoder: Autoencoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a set of clips shows what was asked for."""

    clips: int
    psnr_db_median: float
    """Against the drawn clip of the same scene, peak 255."""
    psnr_db_p10: float
    """A tenth of the clips is below this."""
    subject_accuracy: float
    """Share of clips that are nearest to the drawn clip of their own subject, of all subjects."""
    motion_accuracy: float
    """Share of clips that are nearest to the drawn clip of their own motion, of all motions."""
    direction_accuracy: float
    """Share of those asked to go left, right, up or down whose centre does; 1 if none was."""
    background_accuracy: float
    """Share whose border is nearest to the asked colour, of all named ones."""

    def to_json(self) -> dict[str, float]:
        """Return the fields, rounded to what they mean."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def generate_clips(
    networks: Networks,
    prompts: Sequence[str],
    *,
    num_inference_steps: int,
    seeds: Sequence[int],
    size: int,
) -> Frames:
    """Make one clip for each prompt, as `Pipeline.generate` would with a float32 bundle.

    Args:
        networks: Trained networks, in evaluation mode.
        prompts: N descriptions.
        num_inference_steps: Steps of the sampler.
        seeds: N seeds.
        size: Height and width, pixels.

    Returns:
        (N, F, size, size, 3) uint8 RGB.

    Raises:
        InputError: If a prompt is empty or too long.
    """
    clips = [
        _generate_batch(
            networks,
            prompts[start : start + BATCH],
            num_inference_steps,
            seeds[start : start + BATCH],
            size,
        )
        for start in range(0, len(prompts), BATCH)
    ]
    return np.concatenate(clips)


@torch.no_grad()
def _generate_batch(
    networks: Networks, prompts: Sequence[str], steps: int, seeds: Sequence[int], size: int
) -> Frames:
    config = networks.denoiser.config
    shape = (config.num_frames, config.latent_channels, size // PATCH, size // PATCH)
    context = networks.text_encoder(encode_captions(networks.tokenizer, list(prompts)))
    sigmas = flow_sigmas(steps)
    timesteps = flow_timesteps(sigmas, num_train_timesteps=1)

    def denoise(model_input: Latents, index: int) -> Latents:
        sample = torch.from_numpy(model_input).flatten(0, 1)
        timestep = torch.full((len(prompts),), float(timesteps[index]))
        return networks.denoiser(sample, timestep, context).reshape(model_input.shape).numpy()

    noise = np.stack([initial_latents(seed, shape) for seed in seeds])
    *_, latents = sample_flow_euler(denoise, noise, sigmas, prediction_type="sample")
    return decode_latents(networks.autoencoder, latents)


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


def measure_clips(generated: Frames, scenes: Sequence[Scene], clips: StickerClips) -> Quality:
    """Measure clips against drawn ones.

    Args:
        generated: (N, F, H, W, 3) uint8 RGB.
        scenes: What each of them was asked to show.
        clips: Draws the same scenes.
    """
    references = ReferenceClips(clips)
    pairs = list(zip(generated, scenes, strict=True))
    psnr_db = [psnr_db_of(clip, references.clip(scene)) for clip, scene in pairs]
    directed = [motion_of(clip) == s.motion for clip, s in pairs if s.motion in DIRECTIONS]
    return Quality(
        clips=len(scenes),
        psnr_db_median=float(np.median(psnr_db)),
        psnr_db_p10=float(np.percentile(psnr_db, 10)),
        subject_accuracy=_share(references.nearest_subject(c, s) == s.subject for c, s in pairs),
        motion_accuracy=_share(references.nearest_motion(c, s) == s.motion for c, s in pairs),
        direction_accuracy=_share(directed) if directed else 1.0,
        background_accuracy=_share(background_of(clip) == s.background for clip, s in pairs),
    )


class ReferenceClips:
    """Draws scenes with nothing left to chance."""

    def __init__(self, clips: StickerClips) -> None:
        self._clips = replace(clips, options=clips.options.without_chance())

    def clip(self, scene: Scene) -> Frames:
        """Return the clip of a scene, `(F, H, W, 3)`."""
        return self._draw([scene])[0]

    def nearest_subject(self, frames: Frames, scene: Scene) -> int:
        """Return the subject whose clip, in this scene, has the smallest squared error."""
        count = len(self._clips.sprites.subjects)
        return self._nearest(frames, [replace(scene, subject=i) for i in range(count)])

    def nearest_motion(self, frames: Frames, scene: Scene) -> str:
        """Return the motion with which the clip of this scene has the smallest squared error."""
        if scene.partner is not None:  # pairs are always still
            return scene.motion
        return MOTIONS[self._nearest(frames, [replace(scene, motion=m) for m in MOTIONS])]

    def _nearest(self, frames: Frames, scenes: Sequence[Scene]) -> int:
        errors = [
            np.square(self._draw([scene])[0].astype(np.float32) - frames).mean() for scene in scenes
        ]
        return int(np.argmin(errors))

    def _draw(self, scenes: Sequence[Scene]) -> Frames:
        # The generator is used up, and nothing of what it decides is seen.
        return self._clips.render(scenes, np.random.default_rng(0))


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


def motion_of(frames: Frames) -> str:
    """Return where the subject of a clip goes: one of `captions.DIRECTIONS`, or "still".

    The way is that of a straight line through the centres of the foreground over time.
    """
    count, height, width, _ = frames.shape
    mask = np.abs(frames - border_colour(frames)).max(axis=-1) > FOREGROUND_DISTANCE
    seen = np.flatnonzero(mask.any(axis=(1, 2)))
    if len(seen) < 2:
        return "still"
    centres = np.array([[np.mean(axis) for axis in np.nonzero(mask[frame])] for frame in seen])
    slopes = np.polyfit(seen, centres / (height, width), 1)[0]  # (down, right) per frame
    down, right = slopes * (count - 1)
    if max(abs(down), abs(right)) < STILL_WAY:
        return "still"
    if abs(right) > abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"


def _share(answers: Iterable[bool]) -> float:
    return float(np.mean(list(answers)))
