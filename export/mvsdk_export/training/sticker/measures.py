"""What generated clips are worth, measured against drawn clips of the same scenes.

A scene has one right clip: what its prompt leaves open, the noise decides (`choices.py`), so that
the seed tells what to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mvsdk.manifest import Sampler
from mvsdk.noise import initial_latents
from mvsdk.sampling import Latents, sample_schedule
from mvsdk.tokenizers import WordPiece
from mvsdk_export.checkpoints.schedule import make_sampler
from mvsdk_export.checkpoints.scheduler import FlowScheduler
from mvsdk_export.families.autoencoder import PATCH, Autoencoder
from mvsdk_export.families.sticker.text_encoder import TextEncoder
from mvsdk_export.families.sticker.transformer import SpatioTemporalTransformer
from mvsdk_export.training.data.captions import DIRECTIONS, MOTIONS, Scene
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.features import Features, SubjectProbe
from mvsdk_export.training.measures import (
    Frames,
    background_of,
    change_psnr_db_of,
    decode_latents,
    direction_of,
    psnr_db_of,
    zoom_of,
)
from mvsdk_export.training.methods.consistency import guide
from mvsdk_export.training.sticker.choices import chosen_background, read_choices
from mvsdk_export.training.sticker.denoiser import encode_captions, no_caption
from mvsdk_export.training.sticker.student import predict_with

Generate = Callable[[Sequence[str], Sequence[int], int], Frames]
"""(N prompts, N seeds, steps) -> clips (N, F, H, W, 3): networks or a bundle."""

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
    change_psnr_db: float
    """Of the differences between neighbouring frames against those of the drawn clips; median."""
    subject_accuracy: float
    """Share of clips whose subject the probe names rightly, of all subjects."""
    motion_accuracy: float
    """Share of clips that are nearest to the drawn clip of their own motion, of all motions."""
    direction_accuracy: float
    """Share of those asked to go left, right, up or down whose centre does; 1 if none was."""
    zoom_accuracy: float
    """Share of those asked to zoom that grow or shrink as asked; 1 if none was."""
    background_accuracy: float
    """Share whose border is nearest to the asked colour, of all named ones."""

    def to_json(self) -> dict[str, float]:
        """Return the fields, rounded to what they mean."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def generate_with(
    networks: Networks, scheduler: FlowScheduler, *, size: int, guidance_scale: float = 1.0
) -> Generate:
    """Return what makes clips as `Pipeline.generate` would with a float32 bundle.

    Its noise, its schedule, its sampler; only the networks are PyTorch's, and clips run in batches.

    Args:
        networks: Trained networks, in evaluation mode.
        scheduler: How they are sampled.
        size: Height and width, pixels.
        guidance_scale: Guidance of a teacher; 1 for none.
    """

    def generate(prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Frames:
        sampler = make_sampler(scheduler, [steps], steps)
        parts = [slice(start, start + BATCH) for start in range(0, len(prompts), BATCH)]
        return np.concatenate(
            [
                _generate_batch(networks, prompts[i], seeds[i], sampler, size, guidance_scale)
                for i in parts
            ]
        )

    return generate


@torch.no_grad()
def _generate_batch(
    networks: Networks,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    size: int,
    guidance_scale: float,
) -> Frames:
    ids = encode_captions(networks.tokenizer, list(prompts))
    context = networks.text_encoder(ids)
    silence = networks.text_encoder(no_caption(ids)).expand_as(context)
    predict = guide(
        predict_with(networks.denoiser, context),
        predict_with(networks.denoiser, silence),
        guidance_scale,
    )
    steps = sampler.default_steps
    timesteps = sampler.schedules[steps].timesteps

    def denoise(model_input: Latents, index: int) -> Latents:
        times = torch.full((len(prompts),), timesteps[index])
        return predict(torch.from_numpy(model_input), times).numpy()

    def noise(index: int) -> Latents:
        return np.stack([_noise(networks, seed, size, index) for seed in seeds])

    *_, latents = sample_schedule(sampler, steps, denoise, noise(0), noise)
    return decode_latents(networks.autoencoder, latents)


def _noise(networks: Networks, seed: int, size: int, stream: int) -> Latents:
    config = networks.denoiser.config
    shape = (config.num_frames, config.latent_channels, size // PATCH, size // PATCH)
    return initial_latents(seed, shape, stream=stream)


def measure_clips(
    generated: Frames,
    scenes: Sequence[Scene],
    chances: NDArray[np.float64],
    clips: StickerClips,
    *,
    probe: SubjectProbe,
    features: Features,
) -> Quality:
    """Measure clips against drawn ones.

    Args:
        generated: (N, F, H, W, 3) uint8 RGB.
        scenes: What each of them was asked to show.
        chances: What else their noise decided, (N, CHANCES).
        clips: Draws the same scenes.
        probe: Names subjects.
        features: What it looks at, of the generated clips.
    """
    drawn = clips.render(scenes, np.random.default_rng(0), chances)
    triples = list(zip(generated, drawn, scenes, strict=True))
    psnr_db = [psnr_db_of(clip, right) for clip, right, _ in triples]
    moved = [
        _nearest_motion(x, s, c, clips) for x, s, c in zip(generated, scenes, chances, strict=True)
    ]
    return Quality(
        clips=len(scenes),
        psnr_db_median=float(np.median(psnr_db)),
        psnr_db_p10=float(np.percentile(psnr_db, 10)),
        change_psnr_db=float(np.median([change_psnr_db_of(x, y) for x, y, _ in triples])),
        subject_accuracy=_share(probe(features) == [s.subject for s in scenes]),
        motion_accuracy=_share(m == s.motion for m, s in zip(moved, scenes, strict=True)),
        direction_accuracy=_share(
            direction_of(x) == s.motion for x, _, s in triples if s.motion in DIRECTIONS
        ),
        zoom_accuracy=_share(zoom_of(x) == s.motion for x, _, s in triples if "zoom" in s.motion),
        background_accuracy=_share(background_of(x) == s.background for x, _, s in triples),
    )


def chances_of(seeds: Sequence[int], latent_shape: Sequence[int]) -> NDArray[np.float64]:
    """Return what the noise of seeds leaves to chance in a clip, `(N, CHANCES)`."""
    return _choices_of(seeds, latent_shape)[:, 1:]


def backgrounds_of(seeds: Sequence[int], latent_shape: Sequence[int]) -> list[str]:
    """Return the background that the noise of each seed chooses where a prompt names none."""
    return [chosen_background(x) for x in _choices_of(seeds, latent_shape)[:, 0]]


def _choices_of(seeds: Sequence[int], latent_shape: Sequence[int]) -> NDArray[np.float64]:
    noise = np.stack([initial_latents(seed, latent_shape) for seed in seeds])
    return read_choices(torch.from_numpy(noise)).double().numpy()


def _nearest_motion(
    frames: Frames, scene: Scene, chance: NDArray[np.float64], clips: StickerClips
) -> str:
    """Return the motion with which the drawn clip of this scene has the smallest squared error."""
    scenes = [replace(scene, motion=motion) for motion in MOTIONS]
    drawn = clips.render(scenes, np.random.default_rng(0), np.tile(chance, (len(scenes), 1)))
    errors = np.square(drawn.astype(np.float32) - frames).mean(axis=(1, 2, 3, 4))
    return MOTIONS[int(np.argmin(errors))]


def _share(answers: Iterable[bool]) -> float:
    """Return the share of right answers; 1 where nothing was asked."""
    values = list(answers)
    return float(np.mean(values)) if values else 1.0
