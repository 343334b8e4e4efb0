"""Measures of generated clips, on drawn clips whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

from tiny_training import SUBJECTS, TINY, tiny_sprites

from mvsdk_export.distill.captions import (
    BACKGROUNDS,
    DIRECTIONS,
    MOTIONS,
    Scene,
    held_out_background,
    held_out_motion,
)
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.measures import (
    ReferenceClips,
    background_of,
    measure_clips,
    motion_of,
    psnr_db_of,
)
from mvsdk_export.distill.quality import draw_prompts

CLIPS = StickerClips(sprites=tiny_sprites(), options=replace(TINY.clips, frames=8))


def _scene(subject: int, motion: str, background: str) -> Scene:
    return Scene(subject=subject, motion=motion, background=background)


def test_perfect_clips_score_full_marks() -> None:
    scenes = [_scene(0, "left", "yellow"), _scene(1, "still", "pink"), _scene(2, "down", "gray")]
    references = ReferenceClips(CLIPS)
    frames = np.stack([references.clip(scene) for scene in scenes])
    quality = measure_clips(frames, scenes, CLIPS)
    assert quality.clips == 3
    assert quality.psnr_db_median == quality.psnr_db_p10 == 100.0
    assert quality.subject_accuracy == 1.0
    assert quality.motion_accuracy == quality.background_accuracy == 1.0
    assert quality.direction_accuracy == 1.0


def test_each_fault_lowers_its_own_measure() -> None:
    asked = _scene(0, "left", "yellow")
    shown = [asked, _scene(0, "left", "purple"), _scene(0, "right", "yellow")]
    shown.append(_scene(2, "left", "yellow"))
    references = ReferenceClips(CLIPS)
    for scene, (background, motion, subject) in zip(
        shown, [(1, 1, 1), (0, None, None), (1, 0, None), (1, None, 0)], strict=True
    ):
        quality = measure_clips(references.clip(scene)[None], [asked], CLIPS)
        assert quality.background_accuracy == background
        assert motion is None or quality.motion_accuracy == motion
        assert motion is None or quality.direction_accuracy == motion
        assert subject is None or quality.subject_accuracy == subject
    frames = np.stack([references.clip(scene) for scene in shown])
    quality = measure_clips(frames, [asked] * 4, CLIPS)
    assert quality.background_accuracy == quality.direction_accuracy == 0.75
    assert quality.psnr_db_p10 < quality.psnr_db_median < 100.0


@pytest.mark.parametrize("background", list(BACKGROUNDS))
def test_drawn_backgrounds_and_directions_are_recognised(background: str) -> None:
    rng = np.random.default_rng(0)
    for subject in range(len(SUBJECTS)):
        scenes = [_scene(subject, motion, background) for motion in MOTIONS]
        frames = CLIPS.render(scenes, rng)
        assert [background_of(clip) for clip in frames] == [background] * len(MOTIONS)
        if background not in ("black", "green"):  # where the sprites themselves are dark
            found = [motion_of(clip) for clip in frames]
            assert found[: len(DIRECTIONS) + 1] == ["still", *DIRECTIONS]


def test_psnr_of_a_known_error() -> None:
    dark = np.full((2, 4, 4, 3), 100, np.uint8)
    light = np.full((2, 4, 4, 3), 110, np.uint8)
    assert psnr_db_of(dark, light) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr_db_of(light, dark) == psnr_db_of(dark, light)
    assert psnr_db_of(dark, dark) == 100.0


@pytest.mark.parametrize("motion", MOTIONS)
def test_drawn_clips_are_nearest_to_themselves(motion: str) -> None:
    references = ReferenceClips(CLIPS)
    for subject in range(len(SUBJECTS)):
        scene = _scene(subject, motion, "yellow")
        frames = references.clip(scene)
        assert references.nearest_motion(frames, scene) == motion
        assert references.nearest_subject(frames, scene) == subject


def test_empty_clip_is_still() -> None:
    assert motion_of(np.full((8, 32, 32, 3), 200, np.uint8)) == "still"


def test_prompts_of_a_quality_table_are_what_they_are_called() -> None:
    for kind in ("training", "held_out"):
        scenes, captions = draw_prompts(CLIPS, kind, 30)
        for scene in scenes:
            subject = SUBJECTS[scene.subject]
            held_out = scene.motion == held_out_motion(subject)
            held_out |= scene.background == held_out_background(subject)
            assert held_out is (kind == "held_out")
        assert all(s.background in c.split() for s, c in zip(scenes, captions, strict=True))
        assert (scenes, captions) == draw_prompts(CLIPS, kind, 30)
