"""The sticker data set, on tiny animations made here: nothing is downloaded."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from npm_packages import write_tarball
from numpy.typing import NDArray
from PIL import Image

from mvsdk_export.training.data import sources, sprites
from mvsdk_export.training.data.captions import (
    BACKGROUNDS,
    DIRECTIONS,
    HELD_OUT,
    JOINTS,
    MOTIONS,
    TRAINING,
    VERBS,
    CaptionSampler,
    Scene,
    all_words,
    held_out_background,
    held_out_motion,
    motion_phrases,
)
from mvsdk_export.training.data.clips import ClipOptions, StickerClips, resampling_matrix
from mvsdk_export.training.data.sources import DataError, Package
from mvsdk_export.training.data.sprites import Facing, Sprites, Subject
from mvsdk_export.training.sticker.recipe import STICKER_TRAINING

SIDE = 32
LOOP = 6


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
    _subject("arrow", "left"),
    _subject("dart", "right"),
    _subject("ball", "none"),
)


def _save_loop(path: Path, *, heavy_side: str) -> None:
    """Write a square with a wide bar on one side, whose shade changes over the loop."""
    images: list[Image.Image] = []
    for frame in range(LOOP):
        pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
        pixels[8:24, 4:28] = (40, 200, 40 + 30 * frame, 255)
        if heavy_side == "left":
            pixels[2:30, 4:12] = (0, 0, 0, 255)
        elif heavy_side == "right":
            pixels[2:30, 20:28] = (0, 0, 0, 255)
        images.append(Image.fromarray(pixels))
    # PNG: Pillow 13 writes animated WebP without its alpha.
    images[0].save(path, "PNG", save_all=True, append_images=images[1:], duration=40)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> StickerClips:
    folder = tmp_path_factory.mktemp("webp")
    loops: list[NDArray[np.uint8]] = []
    for subject in SUBJECTS:
        path = folder / f"{subject.id}.webp"
        _save_loop(path, heavy_side=subject.facing)
        loops.append(sprites.decode_sprite(path, size=SIDE, source_frames=LOOP))
    made = Sprites(subjects=SUBJECTS, rgba=np.stack(loops))
    return StickerClips(sprites=made, options=ClipOptions(size=SIDE))


def _mask(frames: NDArray[np.uint8], background: str = "yellow") -> NDArray[np.float64]:
    difference = frames.astype(np.int64) - np.array(BACKGROUNDS[background])
    return (np.abs(difference).max(axis=-1) > 8).astype(np.float64)


def _centroid(mask: NDArray[np.float64]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()), float(rows.mean())


def _render(
    clips: StickerClips, subject: str, motion: str, background: str = "yellow", seed: int = 0
) -> NDArray[np.uint8]:
    scene = clips.scene(subject, motion=motion, background=background)
    return clips.render([scene], np.random.default_rng(seed))[0]


@pytest.mark.parametrize("subject", ["arrow", "dart", "ball"])
@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_subject_moves_where_the_scene_says(
    clips: StickerClips, subject: str, motion: str, axis: int, sign: int
) -> None:
    for seed in range(5):
        frames = _render(clips, subject, motion, seed=seed)
        start, end = (_centroid(_mask(frame)) for frame in (frames[0], frames[-1]))
        assert sign * (end[axis] - start[axis]) > 0.2 * SIDE
        assert abs(end[1 - axis] - start[1 - axis]) < 2.0


def test_still_subject_stays_and_still_animates(clips: StickerClips) -> None:
    frames = _render(clips, "ball", "still")
    masks = [_mask(frame) for frame in frames]
    assert all(np.array_equal(masks[0], mask) for mask in masks)
    assert not np.array_equal(frames[0], frames[3])


@pytest.mark.parametrize(("motion", "sign"), [("zoom in", 1), ("zoom out", -1)])
def test_zoom_changes_the_size_all_along(clips: StickerClips, motion: str, sign: int) -> None:
    areas = [_mask(frame).sum() for frame in _render(clips, "ball", motion)]
    assert (np.diff(areas) * sign > 0).all()
    assert max(areas) > 3 * min(areas)


def test_flip_shows_the_edge_and_the_mirrored_side(clips: StickerClips) -> None:
    frames = _render(clips, "arrow", "flip")
    widths = [np.ptp(np.nonzero(_mask(frame))[1]) for frame in frames]
    assert widths[2] < 0.4 * widths[0]
    mirrored = frames[4][:, ::-1].astype(int) - frames[0]
    assert np.abs(mirrored).mean() < np.abs(frames[4].astype(int) - frames[0]).mean()


def test_spin_turns_about_the_centre(clips: StickerClips) -> None:
    frames = _render(clips, "ball", "spin")
    heights = [np.ptp(np.nonzero(_mask(frame))[0]) for frame in frames]
    widths = [np.ptp(np.nonzero(_mask(frame))[1]) for frame in frames]
    assert widths[0] > heights[0]
    assert widths[2] < heights[2]
    assert abs(_centroid(_mask(frames[2]))[0] - _centroid(_mask(frames[0]))[0]) < 1.5


@pytest.mark.parametrize(("size", "factor"), [("small", 0.6), ("big", 1.35)])
def test_size_scales_the_sprite(clips: StickerClips, size: str, factor: float) -> None:
    scene = clips.scene("ball", background="yellow", size=size)
    frames = clips.render([scene], np.random.default_rng(0))[0]
    ratio = _mask(frames).sum() / _mask(_render(clips, "ball", "still")).sum()
    assert ratio == pytest.approx(factor**2, rel=0.15)


def test_partner_stands_to_the_right(clips: StickerClips) -> None:
    scene = Scene(subject=0, partner=2, background="yellow")
    frames = clips.render([scene], np.random.default_rng(0))[0]
    dark = frames[0].max(axis=-1) < 60  # only the arrow has a dark bar
    half = SIDE // 2
    assert dark[:, :half].any()
    assert not dark[:, half:].any()
    assert _mask(frames[0])[:, half:].any()


def test_chance_moves_and_scales_as_it_is_told(clips: StickerClips) -> None:
    scene = clips.scene("ball", background="yellow")
    rng = np.random.default_rng(0)

    def draw(*chance: float) -> NDArray[np.uint8]:
        return clips.render([scene], rng, np.array([chance]))[0]

    assert _mask(draw(1.0, 0.5, 0.5)).sum() > _mask(draw(0.0, 0.5, 0.5)).sum()
    assert _centroid(_mask(draw(0.5, 1.0, 0.5))[0])[0] > _centroid(_mask(draw(0.5, 0.0, 0.5))[0])[0]
    assert _centroid(_mask(draw(0.5, 0.5, 1.0))[0])[1] > _centroid(_mask(draw(0.5, 0.5, 0.0))[0])[1]


@pytest.mark.parametrize(
    ("subject", "motion"),
    [("arrow", "right"), ("arrow", "left"), ("dart", "left"), ("dart", "right")],
)
def test_subject_faces_its_movement(clips: StickerClips, subject: str, motion: str) -> None:
    frames = _render(clips, subject, motion)
    dark = frames[4].max(axis=-1) < 60
    front, whole = _centroid(dark.astype(np.float64))[0], _centroid(_mask(frames[4]))[0]
    assert (front < whole) is (motion == "left")


@pytest.mark.parametrize("background", list(BACKGROUNDS))
def test_background_is_the_named_colour_to_the_bit(clips: StickerClips, background: str) -> None:
    frames = _render(clips, "ball", "still", background)
    corners = frames[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.array_equal(corners, np.broadcast_to(BACKGROUNDS[background], corners.shape))


def test_equal_seeds_give_equal_clips_and_others_do_not(clips: StickerClips) -> None:
    first = clips.sample_frames(np.random.default_rng(3), 12)
    assert first.shape == (12, 8, SIDE, SIDE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, clips.sample_frames(np.random.default_rng(3), 12))
    assert not np.array_equal(first, clips.sample_frames(np.random.default_rng(4), 12))


def test_opaque_sprite_hides_the_background_at_every_scale() -> None:
    for scale in (0.5, 0.66, 0.7, 0.76, 1.0, 1.3):
        matrix = resampling_matrix(np.array([0.5, 0.53]), np.full(2, scale), 64, 64)
        middle = matrix[:, 26:38].sum(axis=-1)
        np.testing.assert_allclose(middle, 1.0, atol=1e-6)


def test_resampling_at_the_sprites_own_size_copies_it() -> None:
    one, centre = np.ones(1), np.array([0.5])
    np.testing.assert_allclose(resampling_matrix(centre, one, 16, 16)[0], np.eye(16))
    np.testing.assert_allclose(resampling_matrix(centre, -one, 16, 16)[0], np.eye(16)[::-1])


def test_training_never_shows_or_says_what_is_held_out() -> None:
    sampler = CaptionSampler(subjects=sprites.load_subjects())
    rng = np.random.default_rng(0)
    words: set[str] = set()
    lengths: set[int] = set()
    for _ in range(20_000):
        scene = sampler.sample_scene(rng)
        subject = sampler.subjects[scene.subject]
        assert scene.motion != held_out_motion(subject)
        assert scene.background != held_out_background(subject)
        caption = sampler.caption(scene, rng).text
        assert any(name in caption for name in subject.names)
        words.update(caption.split())
        lengths.add(len(caption.split()))
    assert words.isdisjoint({*HELD_OUT.verbs, "leftwards", "towards", "backdrop", "this"})
    assert words <= set(all_words(sampler.subjects))
    assert max(lengths) <= 20


def test_caption_says_whether_it_names_the_background() -> None:
    sampler = CaptionSampler(subjects=sprites.load_subjects())
    rng = np.random.default_rng(0)
    unnamed = 0
    for _ in range(2_000):
        scene = sampler.sample_scene(rng)
        phrases = {p.format(colour=scene.background) for p in TRAINING.backgrounds}
        caption = sampler.caption(scene, rng)
        text = caption.text.replace("an orange", "a orange")
        assert text.endswith(tuple(phrases)) is caption.names_background
        unnamed += not caption.names_background
    assert 0.15 < unnamed / 2_000 < 0.35


def test_mirrored_direction_is_never_held_out_and_every_motion_is() -> None:
    subjects = sprites.load_subjects()
    held_out = {subject.id: held_out_motion(subject) for subject in subjects}
    assert set(held_out.values()) == set(MOTIONS[1:])
    assert {held_out_background(subject) for subject in subjects} == set(BACKGROUNDS)
    for subject in subjects:
        assert {subject.facing, held_out[subject.id]} != {"left", "right"}


def test_held_out_draws_are_all_held_out(clips: StickerClips) -> None:
    sampler = clips.captions
    rng = np.random.default_rng(0)
    for _ in range(500):
        scene = sampler.sample_held_out_scene(rng)
        subject = SUBJECTS[scene.subject]
        assert scene.motion == held_out_motion(subject) or scene.background == held_out_background(
            subject
        )
    known = set(all_words(SUBJECTS))
    other_words = replace(sampler, wording=HELD_OUT)
    for _ in range(60):
        scene = sampler.sample_scene(rng)
        caption = other_words.caption(scene, rng, name_everything=True).text
        assert scene.background in caption.split()
        assert caption.startswith("this ")
        assert set(caption.split()) <= known


DIRECTED = {
    phrase for phrases in TRAINING.directions.values() for phrase in phrases if " " not in phrase
}
"""Words that say a direction by themselves."""


def test_longest_captions_leave_room_in_the_text_encoder(clips: StickerClips) -> None:
    sampler = CaptionSampler(subjects=sprites.load_subjects())
    names = sorted(len(re.findall(r"\w+|-", n)) for s in sampler.subjects for n in s.names)
    moves = max(
        len(phrase.split())
        for kind, motion in itertools.product(VERBS, MOTIONS)
        for phrase in motion_phrases(kind, motion)
    )
    joint = max(len(x.split()) for x in JOINTS)
    behind = max(len(x.split()) for x in TRAINING.backgrounds)
    room = STICKER_TRAINING.text_encoder.max_length
    assert 2 + names[-1] + moves + behind <= room, "article, size, name, motion, background"
    assert 4 + names[-1] + names[-2] + joint + behind <= room, "two of them, which stand still"


def test_caption_says_what_the_scene_says(clips: StickerClips) -> None:
    rng, sampler = np.random.default_rng(1), clips.captions
    scenes = [sampler.sample_held_out_scene(rng) for _ in range(300)]
    captions = [sampler.caption(scene, rng, name_everything=True).text for scene in scenes]
    for caption, scene in zip(captions, scenes, strict=True):
        assert scene.background in caption.split()
        assert any(name in caption for name in SUBJECTS[scene.subject].names)
        if " from " in caption:
            ends = {"left": "left", "right": "right", "up": "top", "down": "bottom"}
            assert f"to {ends[scene.motion]}" in caption
        if scene.motion not in DIRECTIONS:
            assert not DIRECTED & set(caption.split())
    assert {scene.motion for scene in scenes} == set(MOTIONS)


def test_sizes_and_partners_are_said() -> None:
    sampler = CaptionSampler(subjects=SUBJECTS)
    rng = np.random.default_rng(0)
    small = sampler.caption(Scene(subject=0, background="red", size="small"), rng).text
    assert {"small", "tiny", "little"} & set(small.split())
    pair = sampler.caption(Scene(subject=0, partner=2, background="red"), rng).text
    assert pair.index("arrow") < pair.index("ball")
    assert any(f" {joint} " in pair for joint in JOINTS)


def test_articles_fit_their_words() -> None:
    sampler = CaptionSampler(subjects=sprites.load_subjects())
    rng = np.random.default_rng(0)
    text = "\n".join(sampler.caption(sampler.sample_scene(rng), rng).text for _ in range(5_000))
    assert "an orange background" in text
    for wrong in ("a orange", "a airplane", "a owl", "an unicorn", "an ufo"):
        assert wrong not in text


def test_shipped_subjects_are_named_once_and_can_move() -> None:
    subjects = sprites.load_subjects()
    names = [name for subject in subjects for name in (*subject.names, *subject.keywords)]
    assert len(subjects) == 970
    assert sorted(names) == sorted(set(names))
    assert {subject.kind for subject in subjects} <= set(VERBS)
    assert len({subject.codepoints for subject in subjects}) == 970
    facing = {subject.id: subject.facing for subject in subjects}
    assert (facing["rocket"], facing["car"], facing["penguin"]) == ("right", "left", "none")
    assert Counter(facing.values()) == {"none": 853, "left": 114, "right": 3}, "docs/training.md"


def test_sprites_are_premultiplied_and_survive_the_cache(
    clips: StickerClips, tmp_path: Path
) -> None:
    rgba = clips.sprites.rgba
    assert np.all(rgba[..., :3] <= rgba[..., 3:])
    sprites.save_sprites(clips.sprites, tmp_path / "a" / "sprites.npz")
    loaded = sprites.load_sprites(tmp_path / "a" / "sprites.npz")
    assert loaded.subjects == clips.sprites.subjects
    assert np.array_equal(loaded.rgba, rgba)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["sprites.npz"]


def test_damaged_cache_and_image_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "sprites.npz"
    bad.write_bytes(b"not a cache")
    with pytest.raises(DataError, match="build them again"):
        sprites.load_sprites(bad)
    image = tmp_path / "x.webp"
    _save_loop(image, heavy_side="left")
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match="cannot decode"):
        sprites.decode_sprite(image, size=SIDE, source_frames=LOOP)


def test_sprites_that_look_right_are_turned(clips: StickerClips) -> None:
    before = clips.sprites
    after = sprites.turn_left(before)
    arrow, dart, ball = range(3)
    assert [subject.facing for subject in after.subjects] == ["left", "left", "none"]
    assert np.array_equal(after.rgba[dart], before.rgba[dart, :, :, ::-1])
    assert not np.array_equal(after.rgba[dart], before.rgba[dart])
    assert np.array_equal(after.rgba[[arrow, ball]], before.rgba[[arrow, ball]])


def test_build_fetches_nothing_twice_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    pictures = {f"package/assets/{s.codepoints}-FE0F.webp": s for s in SUBJECTS}

    def fetch(package: Package, folder: Path) -> Path:
        fetched.append(package.name)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / package.archive_name
        if package is sources.EMOJIBASE:
            rows = ",".join(
                f'{{"hexcode": "{s.codepoints.upper()}", "label": "{s.noun}", "tags": ["t"]}}'
                for s in SUBJECTS
            )
            return write_tarball(path, {"package/en/data.json": f"[{rows}]".encode()})
        members: dict[str, bytes] = {}
        for name, subject in pictures.items():
            _save_loop(tmp_path / "x.webp", heavy_side=subject.facing)
            members[name] = (tmp_path / "x.webp").read_bytes()
        return write_tarball(path, members)

    monkeypatch.setattr(sprites, "fetch_package", fetch)
    path = sprites.build_sprites(tmp_path, size=16, source_frames=LOOP, subjects=SUBJECTS)
    assert fetched == ["@lobehub/fluent-emoji-anim-1"]
    found = sprites.load_sprites(path)
    turned = [replace(x, facing="left") if x.facing == "right" else x for x in SUBJECTS]
    assert found.subjects == tuple(turned)
    assert sprites.build_sprites(tmp_path, size=16, source_frames=LOOP, subjects=SUBJECTS) == path
    other = sprites.build_sprites(tmp_path, size=8, source_frames=LOOP, subjects=SUBJECTS)
    assert other != path
    assert len(fetched) == 1
