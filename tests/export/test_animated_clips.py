"""Clips that follow from a picture: how they are drawn, what is held out, how they are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

from tiny_animator_training import arrows, start

from mvsdk_export.training.animator.clips import (
    TRAVEL,
    AnimatedClips,
    held_out_subjects,
    is_never_mirrored,
    move_of,
)
from mvsdk_export.training.animator.measures import measure_ways
from mvsdk_export.training.data.captions import held_out_background
from mvsdk_export.training.data.sprites import Sprites, Subject, load_subjects
from mvsdk_export.training.measures import direction_of, way_of

pytestmark = pytest.mark.torch


def test_mirrored_picture_goes_the_other_way() -> None:
    clips = arrows()
    plain, mirrored = clips.render([start(), start(mirrored=True)])
    assert [direction_of(plain), direction_of(mirrored)] == ["left", "right"]
    np.testing.assert_array_equal(mirrored[0], plain[0][:, ::-1])


def test_bucket_decides_how_far_and_nothing_of_the_picture() -> None:
    clips = arrows()
    frames = clips.render([start(bucket=bucket) for bucket in (0, 64, 127)])
    for other in frames[1:]:
        np.testing.assert_array_equal(other[0], frames[0][0])
    found = [way_of(x) for x in frames]
    ways = [way[0] for way in found if way is not None]
    assert ways == pytest.approx([0, -TRAVEL * 64 / 127, -TRAVEL], abs=0.01)
    assert not np.array_equal(frames[0][0], frames[0][-1]), "it stands still, but is animated"


def test_subjects_that_look_nowhere_move_as_their_kind_does() -> None:
    subjects = {x.id: x for x in load_subjects()}
    assert move_of(subjects["balloon"], mirrored=True) == "rise"
    assert move_of(subjects["pizza"], mirrored=False) == "hop"
    assert move_of(subjects["car"], mirrored=False) == subjects["car"].facing


def test_training_never_shows_what_is_held_out() -> None:
    subjects = load_subjects()[:60]
    clips = AnimatedClips(sprites=_blank(subjects))
    rng = np.random.default_rng(0)
    held = held_out_subjects(subjects)
    assert 0 < len(held) < 30
    for _ in range(400):
        seen = clips.sample_start(rng)
        subject = subjects[seen.subject]
        assert seen.subject not in held
        assert seen.background != held_out_background(subject)
        assert not (seen.mirrored and is_never_mirrored(subject))
        new = clips.sample_start(rng, "backgrounds")
        assert new.subject not in held
        assert new.background == held_out_background(subjects[new.subject])
        new = clips.sample_start(rng, "mirrorings")
        assert new.subject not in held
        assert new.mirrored
        assert is_never_mirrored(subjects[new.subject])
        assert clips.sample_start(rng, "subjects").subject in held


def _blank(subjects: Sequence[Subject]) -> Sprites:
    shape = (len(subjects), 1, 8, 8, 4)
    return Sprites(subjects=tuple(subjects), rgba=np.zeros(shape, np.uint8))


def test_ways_are_measured_of_subjects_that_look_somewhere() -> None:
    clips = arrows()
    starts = [start(), start(mirrored=True)]

    def draw(pictures: np.ndarray, buckets: Sequence[int], seeds: Sequence[int]) -> np.ndarray:
        del pictures
        return clips.render([replace(starts[i], bucket=b) for i, b in zip(seeds, buckets)])  # noqa: B905

    ways = measure_ways(draw, starts, clips, [0, 1])
    assert ways[0] == pytest.approx(0, abs=0.5)
    assert ways[127] == pytest.approx(64 * TRAVEL, abs=0.5)
    assert ways[255] == pytest.approx(128 * TRAVEL, abs=1.0)
