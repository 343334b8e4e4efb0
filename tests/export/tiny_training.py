"""A training run of seconds: three drawn subjects, tiny networks, a made-up teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvsdk_export.checkpoints import FlowScheduler
from mvsdk_export.families.autoencoder import AutoencoderConfig
from mvsdk_export.families.sticker.text_encoder import TextEncoderConfig
from mvsdk_export.families.sticker.transformer import TransformerConfig
from mvsdk_export.training.data.captions import BACKGROUNDS
from mvsdk_export.training.data.clips import ClipOptions
from mvsdk_export.training.data.sprites import Facing, Sprites, Subject, save_sprites, sprite_cache
from mvsdk_export.training.options import TrainOptions, TrainStep
from mvsdk_export.training.plan import ALONE
from mvsdk_export.training.sticker.choices import CHOICES
from mvsdk_export.training.sticker.plan import StickerTrainingPlan
from mvsdk_export.training.sticker.recipe import StickerTraining
from mvsdk_export.training.sticker.text_encoder import TEACHER_SIZE, Teacher
from mvsdk_export.training.workers import Workers

SIZE = 32
FRAMES = 4
LOOP = 4


def _subject(name: str, facing: Facing) -> Subject:
    return Subject(
        id=name,
        codepoints=f"1f{len(name):03x}",
        noun=name,
        synonyms=(f"plain {name}",),
        keywords=(f"{name}y",),
        kind="drive",
        facing=facing,
    )


SUBJECTS = (
    _subject("disc", "right"),
    _subject("arrow", "left"),
    _subject("ball", "none"),
)

TINY = StickerTraining(
    name="sticker",
    subjects=SUBJECTS,
    subject_count=2,
    sprite_size=SIZE,
    sprite_frames=LOOP,
    autoencoder_clips=ClipOptions(frames=FRAMES, size=SIZE, scale_spread=0.1),
    clips=ClipOptions(frames=FRAMES, size=SIZE, scale_spread=0.02, place_spread=0.02),
    autoencoder=AutoencoderConfig(
        latent_channels=8, decoder_channels=(32, 32, 32), decoder_layers=1
    ),
    text_encoder=TextEncoderConfig(
        vocabulary_size=1, hidden_size=32, layers=1, heads=2, memory_tokens=5
    ),
    denoiser=TransformerConfig(
        latent_channels=8,
        num_frames=FRAMES,
        width=32,
        layers=1,
        heads=2,
        context_dim=32,
        memory_slots=2,
        memory_tokens=5,
        picture_cells=4,
        picture_size=16,
        choices=CHOICES,
        choice_levels=len(BACKGROUNDS),
    ),
    scheduler=FlowScheduler(kind="flow_euler", prediction_type="sample"),
    bank_clips=70,
    autoencoder_options=TrainOptions(
        steps=80, batch_size=16, learning_rate=5e-3, warmup_steps=10, ema_decay=0.9
    ),
    text_encoder_options=TrainOptions(
        steps=80, batch_size=8, learning_rate=3e-3, warmup_steps=10, ema_decay=0.9
    ),
    draft_options=TrainOptions(
        steps=30, batch_size=8, learning_rate=3e-3, warmup_steps=1, ema_decay=0.9
    ),
    teacher_options=TrainOptions(
        steps=40, batch_size=8, learning_rate=3e-3, warmup_steps=1, ema_decay=0.9
    ),
    distillation_options=TrainOptions(steps=6, batch_size=4, learning_rate=1e-3, warmup_steps=1),
    adversarial_options=TrainOptions(steps=6, batch_size=4, learning_rate=1e-3, warmup_steps=1),
    guidance_scale=1.5,
)


class WordTeacher(Teacher):
    """One token and one fixed feature vector for every word."""

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, list[list[int | None]]]:
        """Return features `(B, M, 384)` and word indices, padded with None."""
        rows = [text.split() for text in texts]
        longest = max(len(row) for row in rows)
        features = torch.zeros(len(rows), longest, TEACHER_SIZE)
        for index, row in enumerate(rows):
            for place, word in enumerate(row):
                features[index, place] = torch.from_numpy(_feature(word))
        return features, [[*range(len(row)), *[None] * (longest - len(row))] for row in rows]


def _feature(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(TEACHER_SIZE).astype(np.float32)


def tiny_sprites() -> Sprites:
    """Draw a half black arrow, a disc and a ring whose shade changes over the loop."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.hypot(x, y)
    shapes = ((radius < 12) & (x > -6), np.abs(y) < (x + 15) / 2, (radius < 14) & (radius > 7))
    colours = ((150, 0, 60), (0, 90, 90), (90, 90, 0))
    rgba = np.zeros((len(SUBJECTS), LOOP, SIZE, SIZE, 4), np.uint8)
    for index, (shape, colour) in enumerate(zip(shapes, colours, strict=True)):
        for frame in range(LOOP):
            rgba[index, frame][shape] = (*(value + 10 * frame for value in colour), 255)
    return Sprites(subjects=SUBJECTS, rgba=rgba)


def write_tiny_data(work: Path, recipe: StickerTraining = TINY) -> None:
    """Write what the stage `data` would have made."""
    names = [{"hexcode": "1F600", "label": "big grin", "tags": ["smile", "a happy face"]}]
    (work / "data" / "emoji").mkdir(parents=True, exist_ok=True)
    (work / "data" / "emoji" / "data.json").write_text(json.dumps(names))
    path = sprite_cache(
        work,
        size=recipe.sprite_size,
        source_frames=recipe.sprite_frames,
        subjects=recipe.chosen_subjects(),
    )
    save_sprites(tiny_sprites().select([x.id for x in recipe.chosen_subjects()]), path)


class TinyTrainingPlan(StickerTrainingPlan):
    """The stages with a made-up teacher of words."""

    def load_words_teacher(self) -> Teacher:
        """Return features of no network."""
        return WordTeacher(network=None, tokenizer=None)


def run_tiny_stage(stage: str, work: Path, workers: Workers = ALONE) -> list[TrainStep]:
    """Run a stage to its end."""
    with closing(TinyTrainingPlan(TINY, work, workers).run(stage)) as steps:
        return list(steps)


def coarse_features(clips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return colours at a coarse grid as features `(N, F, D)`, in place of a network's."""
    small = clips[:, :, ::4, ::4].astype(np.float32) / 255
    return small.reshape(*clips.shape[:2], -1)


def losses_of(steps: Iterable[TrainStep]) -> list[float]:
    """Return the losses of steps that have one."""
    return [step.loss for step in steps if step.loss is not None]
