"""Figures of a model: distances, probes and rows, on clips whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

from numpy.typing import NDArray
from tiny_training import SUBJECTS, TINY, coarse_features, tiny_sprites

from mvsdk_export.training.data.captions import (
    BACKGROUNDS,
    Caption,
    CaptionSampler,
    Scene,
    held_out_background,
    held_out_motion,
)
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.features import (
    SubjectProbe,
    clip_features,
    fit_probe,
    kernel_distance,
    spread_of,
)
from mvsdk_export.training.measures import Frames, change_psnr_db_of, zoom_of
from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.sticker.measures import backgrounds_of
from mvsdk_export.training.sticker.quality import Combinations, Measuring, ModelQuality, QualityRow

pytestmark = pytest.mark.torch

CLIPS = StickerClips(sprites=tiny_sprites(), options=replace(TINY.clips, frames=8))
LATENT_SHAPE = (8, 8, 4, 4)


@pytest.fixture(scope="module")
def measuring() -> Measuring:
    return Measuring(CLIPS, LATENT_SHAPE, prompts=24, features=coarse_features)


def test_probe_is_kept_for_clips_like_those_that_it_was_fitted_on(
    measuring: Measuring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    fit = Measuring._fit_probe

    def counted(self: Measuring) -> SubjectProbe:
        fits.append(1)
        return fit(self)

    monkeypatch.setattr(Measuring, "_fit_probe", counted)

    def probe_of(clips: StickerClips) -> SubjectProbe:
        return Measuring(
            clips,
            LATENT_SHAPE,
            prompts=24,
            features=coarse_features,
            probe_file=tmp_path / "probe.safetensors",
        ).probe

    first, again = probe_of(CLIPS), probe_of(CLIPS)
    assert len(fits) == 1
    for name, value in asdict(measuring.probe).items():
        assert np.array_equal(getattr(first, name), value)
        assert np.array_equal(getattr(again, name), value)
    rgba = CLIPS.sprites.rgba[:, :, :, ::-1].copy()
    probe_of(replace(CLIPS, sprites=replace(CLIPS.sprites, rgba=rgba)))
    assert len(fits) == 2
    (tmp_path / "probe.safetensors").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"cannot be read: .*; remove it and run again"):
        probe_of(CLIPS)


def test_kernel_distance_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, 3)).astype(np.float32) for n in (4, 5))

    def kernel(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float(a.astype(float) @ b.astype(float) / 3 + 1) ** 3

    def within(z: NDArray[np.float32]) -> float:
        pairs = [kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return float(np.mean(pairs))

    across = float(np.mean([kernel(a, b) for a in x for b in y]))
    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * across)


def test_kernel_distance_grows_with_what_differs() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 8)).astype(np.float32)
    distances = [
        kernel_distance(x, rng.standard_normal((400, 8)).astype(np.float32) + shift)
        for shift in (0.0, 0.5, 1.0)
    ]
    assert abs(distances[0]) < 0.1
    assert 0.2 < distances[1] < distances[2]


def test_features_of_a_clip_are_its_mean_and_its_change() -> None:
    frames = np.array([[[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]]], np.float32)
    np.testing.assert_allclose(clip_features(frames), [[2.0, 5.0, 1.5, 0.0]])


def test_spread_is_the_mean_distance_of_pairs() -> None:
    clips = [np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]), np.zeros((2, 2))]
    assert spread_of([x.astype(np.float32) for x in clips]) == pytest.approx(10 / 3 / 2)


def test_probe_tells_subjects_apart_where_one_feature_is_noisy() -> None:
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(3), 40)
    frames = rng.standard_normal((120, 2, 4)).astype(np.float32) * (0.1, 0.1, 0.1, 3.0)
    frames[..., :3] += np.eye(3)[subjects][:, None]
    probe = fit_probe(frames.astype(np.float32), subjects, 3)
    assert (probe(frames.astype(np.float32)) == subjects).mean() > 0.95
    with pytest.raises(TrainingError, match="no clip of subject 3"):
        fit_probe(frames.astype(np.float32), subjects, 4)


@pytest.mark.parametrize("motion", ["zoom in", "zoom out", "still", "left"])
def test_growing_and_shrinking_are_told_apart(motion: str) -> None:
    scenes = [Scene(subject=i, motion=motion, background="pink") for i in range(len(SUBJECTS))]
    found = {zoom_of(clip) for clip in CLIPS.render(scenes, np.random.default_rng(0))}
    assert found == {motion if "zoom" in motion else "still"}


def test_change_of_a_frozen_clip_is_wrong_where_the_clip_moves() -> None:
    scene = Scene(subject=0, motion="left", background="pink")
    clip = CLIPS.render([scene], np.random.default_rng(0))[0]
    frozen = np.repeat(clip[:1], len(clip), axis=0)
    assert change_psnr_db_of(clip, clip) == pytest.approx(100.0)
    assert change_psnr_db_of(clip + np.uint8(3), clip) > 45.0, "changes alone count"
    assert change_psnr_db_of(frozen, clip) < 30.0


def _row(measuring: Measuring, frames: Frames, combinations: Combinations) -> QualityRow:
    def generate(prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Frames:
        assert len(prompts) == len(seeds) == len(frames)
        assert steps == 4
        return frames

    return measuring.row(
        generate, source="student", precision="float32", combinations=combinations, steps=4
    )


def _right_clips(measuring: Measuring, combinations: Combinations) -> Frames:
    scenes, _ = measuring.draw_prompts(combinations)
    return measuring._draw(scenes, [1_000 + index for index in range(len(scenes))])


@pytest.mark.parametrize("combinations", ["training", "held_out", "held_out_words"])
def test_drawn_clips_score_full_marks(measuring: Measuring, combinations: Combinations) -> None:
    row = _row(measuring, _right_clips(measuring, combinations), combinations)
    assert row.quality.psnr_db_median == 100.0
    assert row.quality.motion_accuracy == 1.0
    assert row.quality.background_accuracy == 1.0
    assert row.quality.direction_accuracy > 0.9  # dark sprites on black hide
    assert row.quality.zoom_accuracy > 0.8
    assert row.quality.subject_accuracy > 0.8


def test_spread_of_drawn_clips_is_that_of_drawn_clips(
    measuring: Measuring, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Scene] = []
    draw = CaptionSampler.caption

    def note(sampler: CaptionSampler, scene: Scene, *arguments: Any, **options: Any) -> Caption:
        shown.append(scene)
        return draw(sampler, scene, *arguments, **options)

    def generate(prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Frames:
        names = backgrounds_of(seeds, LATENT_SHAPE)
        if any(name in prompts[0] for name in BACKGROUNDS):
            names = [shown[-1].background] * len(seeds)
        return measuring._draw([replace(shown[-1], background=name) for name in names], seeds)

    monkeypatch.setattr(CaptionSampler, "caption", note)
    spreads = measuring.spreads(generate, 4)
    assert spreads["obedience"] == 1.0
    assert spreads["spread"] == pytest.approx(spreads["drawn_spread"])
    assert spreads["named_spread"] < 0.5 * spreads["spread"]


def test_clips_of_other_prompts_score_next_to_nothing(measuring: Measuring) -> None:
    right = _right_clips(measuring, "training")
    row = _row(measuring, np.roll(right, 1, axis=0), "training")
    assert row.quality.psnr_db_median < 20.0
    assert row.quality.background_accuracy < 0.4
    assert row.quality.motion_accuracy < 0.5
    frozen = _row(measuring, np.repeat(right[:, :1], 8, axis=1), "training")
    assert frozen.quality.background_accuracy == 1.0
    assert frozen.quality.direction_accuracy == 0.0
    assert frozen.quality.zoom_accuracy == 0.0


def test_prompts_are_the_same_every_time_and_held_out_ones_are_held_out(
    measuring: Measuring,
) -> None:
    scenes, captions = measuring.draw_prompts("held_out")
    again, same = measuring.draw_prompts("held_out")
    assert (scenes, captions) == (again, same)
    assert all(_is_held_out(scene) for scene in scenes)
    trained, _ = measuring.draw_prompts("training")
    assert not any(_is_held_out(scene) for scene in trained)


def _is_held_out(scene: Scene) -> bool:
    subject = SUBJECTS[scene.subject]
    return scene.motion == held_out_motion(subject) or scene.background == held_out_background(
        subject
    )


def test_figures_are_read_back_and_rows_of_a_precision_replaced(measuring: Measuring) -> None:
    row = _row(measuring, _right_clips(measuring, "held_out"), "held_out")
    quality = ModelQuality(
        prompts=24,
        autoencoder_psnr_db=34.0,
        autoencoder_change_psnr_db=40.0,
        probe_accuracy=1.0,
        directions_told_apart=1.0,
        kvd_references=measuring.kvd_references,
        spread=1.0,
        drawn_spread=1.0,
        obedience=1.0,
        named_spread=0.5,
        rows=(row, replace(row, precision="w8a16")),
    )
    document = quality.to_json()
    assert ModelQuality.from_json(document).to_json() == document
    other = replace(row, precision="w8a16", num_inference_steps=1)
    assert quality.with_rows([other]).rows == (row, other)
    with pytest.raises(TrainingError, match="measure it again"):
        ModelQuality.from_json({"rows": [{"kvd": 1.0}]})
