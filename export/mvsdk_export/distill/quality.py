"""The quality of a trained model in numbers, for its model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

import numpy as np

from mvsdk_export.distill.autoencoder import reconstruction_psnr_db
from mvsdk_export.distill.captions import Scene
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.measures import (
    Frames,
    Networks,
    Quality,
    ReferenceClips,
    generate_clips,
    measure_clips,
    psnr_db_of,
    reconstruct,
)

Combinations = Literal["training", "held_out"]

SEED_PAIRS = 16
"""Prompts of which two seeds are compared."""

WORST = 5
"""Prompts that a card names for being drawn worst."""

_SCENES_SEED = 20_000
_CLIP_SEED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """One line of the table of a model card."""

    combinations: Combinations
    """Whether training showed these subjects with these directions and colours."""
    num_inference_steps: int | None
    """None: clips that were drawn, not generated, and went through the autoencoder."""
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuality:
    """What was measured of a model."""

    autoencoder_psnr_db: float
    """Fresh clips of subjects that the autoencoder never saw, decoded, against themselves."""
    seeds_psnr_db: float
    """Median over prompts: clips of two seeds against one another; peak 255."""
    worst: tuple[tuple[str, float], ...]
    """Training prompts drawn worst at the most steps, and their PSNR against the drawn clip, dB."""
    rows: tuple[QualityRow, ...]

    def to_json(self) -> dict[str, object]:
        """Return numbers rounded to what they mean."""
        return {
            "autoencoder_psnr_db": round(self.autoencoder_psnr_db, 2),
            "seeds_psnr_db": round(self.seeds_psnr_db, 2),
            "worst": {prompt: round(psnr_db, 2) for prompt, psnr_db in self.worst},
            "rows": [
                {
                    "combinations": row.combinations,
                    "num_inference_steps": row.num_inference_steps,
                    **row.quality.to_json(),
                }
                for row in self.rows
            ],
        }


def measure_model(
    networks: Networks,
    clips: StickerClips,
    unseen: StickerClips,
    *,
    prompts: int = 64,
    steps: Sequence[int] = (1, 2, 4),
) -> ModelQuality:
    """Measure trained networks; equal weights give equal numbers.

    Args:
        networks: In evaluation mode.
        clips: Draw the subjects as the denoiser saw them.
        unseen: Draw subjects that the autoencoder never saw.
        prompts: Prompts of each kind of combination.
        steps: Numbers of sampler steps.
    """
    return ModelQuality(
        autoencoder_psnr_db=reconstruction_psnr_db(networks.autoencoder, unseen),
        seeds_psnr_db=_compare_seeds(networks, clips, min(prompts, SEED_PAIRS), max(steps)),
        worst=_find_worst(networks, clips, prompts, max(steps)),
        rows=tuple(_measure_rows(networks, clips, prompts, steps)),
    )


def draw_prompts(
    clips: StickerClips, combinations: Combinations, count: int
) -> tuple[list[Scene], list[str]]:
    """Draw scenes, and captions that name all there is to see, always the same ones."""
    rng = np.random.default_rng(_SCENES_SEED)
    sampler = clips.captions
    draw = sampler.sample_scene if combinations == "training" else sampler.sample_held_out_scene
    scenes = [draw(rng) for _ in range(count)]
    return scenes, [sampler.caption(s, rng, name_everything=True).text for s in scenes]


def _measure_rows(
    networks: Networks, clips: StickerClips, prompts: int, steps: Sequence[int]
) -> Iterator[QualityRow]:
    kinds: tuple[Combinations, ...] = ("training", "held_out")
    for kind in kinds:
        scenes, captions = draw_prompts(clips, kind, prompts)
        for count in (None, *steps):
            if count is None:
                drawn = clips.render(scenes, np.random.default_rng(_SCENES_SEED))
                frames = reconstruct(networks.autoencoder, drawn)
            else:
                frames = _generate(networks, clips, captions, count)
            quality = measure_clips(frames, scenes, clips)
            yield QualityRow(combinations=kind, num_inference_steps=count, quality=quality)


def _compare_seeds(networks: Networks, clips: StickerClips, prompts: int, steps: int) -> float:
    _, captions = draw_prompts(clips, "training", prompts)
    first, second = (
        _generate(networks, clips, captions, steps, first_seed=seed)
        for seed in (_CLIP_SEED, 2 * _CLIP_SEED)
    )
    return float(np.median([psnr_db_of(a, b) for a, b in zip(first, second, strict=True)]))


def _find_worst(
    networks: Networks, clips: StickerClips, prompts: int, steps: int
) -> tuple[tuple[str, float], ...]:
    scenes, captions = draw_prompts(clips, "training", prompts)
    references = ReferenceClips(clips)
    frames = _generate(networks, clips, captions, steps)
    psnr_db = [psnr_db_of(f, references.clip(s)) for f, s in zip(frames, scenes, strict=True)]
    return tuple(sorted(zip(captions, psnr_db, strict=True), key=itemgetter(1))[:WORST])


def _generate(
    networks: Networks,
    clips: StickerClips,
    captions: Sequence[str],
    steps: int,
    *,
    first_seed: int = _CLIP_SEED,
) -> Frames:
    return generate_clips(
        networks,
        captions,
        num_inference_steps=steps,
        seeds=[first_seed + index for index in range(len(captions))],
        size=clips.options.size,
    )
