"""A training of the image-to-video model in seconds: three drawn subjects, tiny networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tiny_training import LOOP, SIZE, SUBJECTS, tiny_sprites
from torch import Tensor

from mvsdk_export.families.svd.clip_vision import ClipVisionConfig
from mvsdk_export.families.svd.config import SVDUNetConfig
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.training.animator.clips import AnimatedClips, Start
from mvsdk_export.training.animator.plan import AnimatorTrainingPlan
from mvsdk_export.training.animator.recipe import AnimatorTraining
from mvsdk_export.training.data.clips import ClipOptions
from mvsdk_export.training.data.sprites import save_sprites, sprite_cache
from mvsdk_export.training.methods.one_step import Conditions, OneStepStudent
from mvsdk_export.training.options import TrainOptions

FRAMES = 4
_FINETUNED = TrainOptions(steps=3, batch_size=4, learning_rate=1e-3, warmup_steps=1)

TINY = AnimatorTraining(
    name="animator",
    subjects=SUBJECTS,
    sprite_size=SIZE,
    sprite_frames=LOOP,
    clips=ClipOptions(frames=FRAMES, size=SIZE, scale=0.6, scale_spread=0.1, place_spread=0.05),
    unet=SVDUNetConfig(
        in_channels=64,
        out_channels=32,
        block_out_channels=(16, 16, 8, 8),
        layers_per_block=1,
        num_attention_heads=(2, 2, 1, 1),
        cross_attention_dim=16,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        num_frames=FRAMES,
        norm_groups=4,
    ),
    image_encoder=ClipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
        projection_dim=16,
    ),
    bank_clips=70,
    image_encoder_options=TrainOptions(
        steps=20, batch_size=16, learning_rate=5e-3, warmup_steps=2, ema_decay=0.8
    ),
    base_options=TrainOptions(
        steps=30, batch_size=8, learning_rate=5e-3, warmup_steps=5, ema_decay=0.8
    ),
    one_step_options=_FINETUNED,
    frames_options=_FINETUNED,
    importance_options=_FINETUNED,
    prune_options=_FINETUNED,
    funnels_options=_FINETUNED,
)


FAMILY = SVDUNetConfig(
    in_channels=8,
    out_channels=4,
    block_out_channels=(8, 16, 16, 16),
    layers_per_block=1,
    num_attention_heads=(2, 2, 2, 2),
    cross_attention_dim=12,
    addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=12,
    num_frames=3,
    norm_groups=4,
)
"""Another member of the family: latents of four channels, odd numbers of frames and features."""


def write_tiny_sprites(work: Path) -> AnimatorTrainingPlan:
    """Write what the stage `data` would have made, and return the stages."""
    path = sprite_cache(work, size=SIZE, source_frames=LOOP, subjects=SUBJECTS)
    save_sprites(tiny_sprites(), path)
    return AnimatorTrainingPlan(TINY, work)


def arrows(*, frames: int = 8) -> AnimatedClips:
    """Return clips of the subject that looks to the left."""
    options = ClipOptions(frames=frames, size=64, scale=0.5)
    return AnimatedClips(sprites=tiny_sprites().select(["arrow"]), options=options)


def start(**changes: object) -> Start:
    """Return what a clip begins with, and what a test changes of it."""
    return replace(
        Start(subject=0, background="white", colour=(250, 250, 250)),
        **changes,  # pyright: ignore
    )


def draw_ramps(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, Conditions]:
    """Draw clips that follow from what is given: the picture, brighter from frame to frame."""
    del noise
    picture = torch.from_numpy(rng.standard_normal((4, 4, 8, 16)).astype(np.float32))
    clean = torch.stack([picture * (0.5 + 0.25 * frame) for frame in range(3)], dim=1)
    conditions = Conditions(
        features=picture.flatten(1)[:, None, :12],
        image_latents=picture,
        added_time_ids=torch.tensor([[6.0, 127.0, 0.02]]).repeat(4, 1),
    )
    return clean, conditions


def tiny_student(keep: int | None) -> tuple[SVDUNet, OneStepStudent]:
    """Return a frozen backbone of that family, and a student of it."""
    torch.manual_seed(0)
    backbone = SVDUNet(FAMILY).requires_grad_(False).eval()
    return backbone, OneStepStudent(SVDUNet(FAMILY), FAMILY.block_out_channels, 12, keep=keep)
