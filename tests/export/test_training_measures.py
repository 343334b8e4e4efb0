"""Measures of generated clips, on drawn clips whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

from tiny_training import SUBJECTS, TINY, tiny_sprites

from mvsdk_export.training.data.captions import (
    BACKGROUNDS,
    DIRECTIONS,
    MOTIONS,
    Scene,
)
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.measures import background_of, direction_of, psnr_db_of

CLIPS = StickerClips(sprites=tiny_sprites(), options=replace(TINY.clips, frames=8))


def _scene(subject: int, motion: str, background: str) -> Scene:
    return Scene(subject=subject, motion=motion, background=background)


@pytest.mark.parametrize("background", list(BACKGROUNDS))
def test_drawn_backgrounds_and_directions_are_recognised(background: str) -> None:
    rng = np.random.default_rng(0)
    for subject in range(len(SUBJECTS)):
        scenes = [_scene(subject, motion, background) for motion in MOTIONS]
        frames = CLIPS.render(scenes, rng)
        assert [background_of(clip) for clip in frames] == [background] * len(MOTIONS)
        if background not in ("black", "green"):  # where the sprites themselves are dark
            found = [direction_of(clip) for clip in frames]
            assert found[: len(DIRECTIONS) + 1] == ["still", *DIRECTIONS]


def test_psnr_of_a_known_error() -> None:
    dark = np.full((2, 4, 4, 3), 100, np.uint8)
    light = np.full((2, 4, 4, 3), 110, np.uint8)
    assert psnr_db_of(dark, light) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr_db_of(light, dark) == psnr_db_of(dark, light)
    assert psnr_db_of(dark, dark) == 100.0


def test_empty_clip_is_still() -> None:
    assert direction_of(np.full((8, 32, 32, 3), 200, np.uint8)) == "still"
