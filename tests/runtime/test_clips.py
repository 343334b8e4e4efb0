"""Clips of every kind give the frames that are meant, and hostile ones are one line."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import clip_files as files
import numpy as np
import pytest
from PIL import Image

from mvsdk import InputError, PictureNotFoundError, Video, _boxes, _footage, _shots
from mvsdk.clips import MAX_CLIP_BYTES, SUFFIXES, SourceClip, load_clip
from mvsdk.image import MAX_FILE_BYTES, fit_image

SIZE = {"height": 24, "width": 32}


def _load(folder: Path, content: bytes, frames: int = 4, **options: Any) -> SourceClip:
    path = folder / "clip"
    path.write_bytes(content)
    return load_clip(path, frames=frames, **{**SIZE, **options})


def _refused(source: Any, frames: int = 4, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_clip(source, frames=frames, **{**SIZE, **options})
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    return message


def _refused_file(folder: Path, content: bytes, frames: int = 4, **options: Any) -> str:
    (folder / "clip").write_bytes(content)
    return _refused(folder / "clip", frames, **options)


# --- video files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", files.VIDEOS)
def test_frames_of_a_video_are_taken_one_after_another(tmp_path: Path, kind: str) -> None:
    clip = _load(tmp_path, files.video(kind), 12)
    assert clip.frames.shape == (12, 24, 32, 3)
    assert clip.frames.dtype == np.uint8
    assert files.numbers(clip.frames) == list(range(12))
    assert (clip.frames[:, 2, 2] > 250).all()
    assert clip.fps == 30


@pytest.mark.parametrize("kind", files.VIDEOS)
@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (30, list(range(12))),
        (15, [0, 2, 4, 6, 8, 10]),
        (10, [0, 3, 6, 9]),
        (7.5, [0, 4, 8]),
        (90, [0, 0, 1, 1, 1, 2, 2, 2, 3]),
    ],
)
def test_frames_of_a_video_are_chosen_by_time(
    tmp_path: Path, kind: str, fps: float, expected: list[int]
) -> None:
    clip = _load(tmp_path, files.video(kind), len(expected), fps=fps)
    assert files.numbers(clip.frames) == expected
    assert clip.fps == 30


@pytest.mark.parametrize("kind", files.VIDEOS)
def test_a_video_that_is_too_short_is_refused(tmp_path: Path, kind: str) -> None:
    content = files.video(kind)
    assert "ends after frame 12; wanted: 13" in _refused_file(tmp_path, content, 13)
    message = _refused_file(tmp_path, content, 5, fps=10)
    assert "lasts 0.4 s; wanted: 5 frames at 10 fps, more than 0.4 s" in message


def test_one_frame_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    for fps in (None, 8):
        assert _load(tmp_path, files.video("mp4", 1), 1, fps=fps).frames.shape[0] == 1


def test_colours_of_our_own_clips_come_back(tmp_path: Path) -> None:
    colours = np.array([[200, 40, 30], [20, 180, 60], [30, 60, 220], [128, 128, 128]], np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (4, 64, 64, 3)).copy()
    path = Video(frames=frames, fps=8, seed=0).save(tmp_path / "clip.mp4")
    clip = load_clip(path, frames=4, height=64, width=64)
    assert np.abs(clip.frames.astype(int) - frames).max() <= 4
    assert clip.fps == 8


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((-1, 0, 0, 1), (0, 1)),
        ((-1, 0, 0, -1), (1, 1)),
        ((1, 0, 0, -1), (1, 0)),
        ((0, 1, 1, 0), (0, 0)),
        ((0, 1, -1, 0), (0, 1)),  # a phone held upright
        ((0, -1, -1, 0), (1, 1)),
        ((0, -1, 1, 0), (1, 0)),
        ((1, 1, -1, 1), (0, 0)),  # by 45 degrees, which is not applied
    ],
)
def test_frames_of_a_turned_camera_stand_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], corner: tuple[int, int]
) -> None:
    content = files.turned(files.video("mp4", 2), matrix)
    height, width = (64, 48) if matrix[0] == 0 else (48, 64)
    frame = _load(tmp_path, content, 1, height=height, width=width).frames[0, ..., 0]
    quarters = frame.reshape(2, height // 2, 2, width // 2).mean(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == corner
    assert np.sort(quarters.ravel())[2] < 30


def test_each_frame_is_fitted_as_a_picture_is(tmp_path: Path) -> None:
    content = files.video("mp4")  # once: encoders do not always give the same bytes
    whole = _load(tmp_path, content, 3, height=files.HEIGHT, width=files.WIDTH)
    fitted = _load(tmp_path, content, 3, height=20, width=20)
    for before, after in zip(whole.frames, fitted.frames, strict=True):
        assert np.array_equal(fit_image(before, 20, 20), after)


# --- animations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_frames_of_an_animation_are_taken(tmp_path: Path, kind: str) -> None:
    content = files.animation(kind, 8)
    clip = _load(tmp_path, content, 8)
    assert files.numbers(clip.frames) == list(range(8))
    assert clip.fps == 20
    assert files.numbers(_load(tmp_path, content, 4, fps=10).frames) == [0, 2, 4, 6]
    assert "ends after frame 8" in _refused_file(tmp_path, content, 9)
    assert "lasts 0.4 s; wanted: 5 frames at 10 fps" in _refused_file(tmp_path, content, 5, fps=10)


def test_delays_that_browsers_do_not_believe_are_a_tenth_of_a_second(tmp_path: Path) -> None:
    content = files.animation("GIF", 4, delays=[10, 20, 100, 100])
    assert files.numbers(_load(tmp_path, content, 4, fps=20).frames) == [0, 0, 1, 2]
    assert _load(tmp_path, content, 4).fps == round(3 / 0.22, 3)


def test_animations_stand_on_white_and_upright(tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[:24] = (200, 0, 0, 255)
    shots = [Image.fromarray(pixels), Image.fromarray(pixels[:, ::-1] // 2 * 2)]
    exif = Image.Exif()
    exif[0x0112] = 3
    shots[1].putpixel((0, 0), (0, 0, 9, 255))
    shots[0].save(
        tmp_path / "x", "WEBP", save_all=True, append_images=shots[1:], lossless=True, exif=exif
    )
    frames = load_clip(tmp_path / "x", frames=2, height=48, width=64).frames
    assert frames[0, 10, 5].tolist() == [255, 255, 255]
    assert frames[0, 40, 5].tolist() == [200, 0, 0]


def test_comments_of_an_animation_do_not_matter(tmp_path: Path) -> None:
    plain = files.animation("GIF", 4)
    start = 13 + (3 << (plain[10] & 7) + 1)
    comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 40_000 + b"\0"
    begin = time.process_time()
    clip = _load(tmp_path, plain[:start] + comment + plain[start:])
    assert time.process_time() - begin < 2
    assert np.array_equal(clip.frames, _load(tmp_path, plain).frames)


# --- pictures and arrays -------------------------------------------------------------------------


def test_arrays_are_taken_from_their_first_frame(tmp_path: Path) -> None:
    clip = load_clip(files.frames(6), frames=4, fps=8, **SIZE)
    assert files.numbers(clip.frames) == [0, 1, 2, 3]
    assert clip.fps is None
    expected = [fit_image(frame, 24, 32) for frame in files.frames(4)]
    assert np.array_equal(clip.frames, expected)


def test_pictures_of_any_kind_and_size_are_a_clip(tmp_path: Path) -> None:
    one, two, three = (Image.fromarray(frame) for frame in files.frames(3))
    one.save(tmp_path / "one.png")
    two.crop((0, 8, 64, 48)).save(tmp_path / "two.png")
    sources = [tmp_path / "one.png", str(tmp_path / "two.png"), three, files.frames(4)[3]]
    assert files.numbers(load_clip(sources, frames=4, **SIZE).frames) == [0, 1, 2, 3]
    assert files.numbers(load_clip(tuple(sources), frames=2, **SIZE).frames) == [0, 1]


def test_too_few_pictures_and_odd_ones_are_refused(tmp_path: Path) -> None:
    assert "ends after frame 3; wanted: 4" in _refused(files.frames(3))
    assert "ends after frame 1; wanted: 4" in _refused([files.frames(1)[0]])
    message = _refused([*files.frames(3), np.zeros((2, 2), np.uint8)])
    assert "frame 3 of the clip: the picture is uint8 (2, 2); allowed: " in message
    with pytest.raises(PictureNotFoundError, match=r"nothing\.png"):
        load_clip([tmp_path / "nothing.png"], frames=1, **SIZE)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((4, 8, 8), np.uint8),
        np.zeros((4, 8, 8, 4), np.uint8),
        np.zeros((4, 0, 8, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_clip_are_refused(source: np.ndarray) -> None:
    assert "allowed: RGB as uint8 (F, H, W, 3) with no empty axis" in _refused(source)


def test_other_things_and_numbers_are_refused(tmp_path: Path) -> None:
    for source in (None, 7, b"clip.mp4", Image.new("RGB", (4, 4)), iter([])):
        assert "allowed: a path, frames as uint8" in _refused(source)
    for name, value in (("frames", 0), ("frames", 4097), ("height", 0), ("width", 8193)):
        options: dict[str, Any] = {"frames": 4, **SIZE, name: value}
        with pytest.raises(InputError, match=f"{name} is {value}; allowed: whole numbers"):
            load_clip(files.frames(4), **options)
    message = _refused(files.frames(4), 4096, height=8192, width=8192)
    assert "4096 frames of 8192 x 8192 are wanted; allowed: at most 536870912 pixels" in message
    for fps in (0, 241, float("nan")):
        assert "fps is" in _refused(files.frames(4), fps=fps)


# --- times ---------------------------------------------------------------------------------------


def test_rates_are_whole_thousandths() -> None:
    assert _shots.exact_rate(29.97) == Fraction(29970, 1000)
    assert _shots.exact_rate(30000 / 1001) == Fraction(29970, 1000)
    assert _shots.exact_rate(0.1) == Fraction(1, 10)


# --- what is refused -----------------------------------------------------------------------------


def test_places_without_a_clip_are_named(tmp_path: Path) -> None:
    assert "cannot be read: no such file" in _refused(tmp_path / "nothing.mp4")
    with pytest.raises(FileNotFoundError):
        load_clip(tmp_path / "nothing.mp4", frames=1, **SIZE)
    assert "is not a regular file; give the path of an MP4, MOV" in _refused(tmp_path)
    assert "cannot be read" in _refused("a\0b.mp4")
    assert "is no MP4, MOV, WebM" in _refused_file(tmp_path, b"")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_that_nobody_writes_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is not a regular file" in _refused(tmp_path / "pipe.mp4")


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
OTHERS = {
    "playlist": PLAYLIST,
    "list of files": "ffconcat version 1.0\nfile {}\n",
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "manifest": '<?xml version="1.0"?><MPD><BaseURL>{}</BaseURL></MPD>',
    "text": "http://127.0.0.1/clip.mp4",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_files_that_name_others_are_refused(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(files.video("mp4"))
    content = OTHERS[kind].format(other).encode()
    assert "is no MP4, MOV, WebM, Matroska, AVI, GIF or WebP file" in _refused_file(
        tmp_path, content
    )
    hidden = b"\0\0\0\x18ftypisom\0\0\0\0isommp41" + content
    assert "is damaged: " in _refused_file(tmp_path, hidden)


def test_urls_are_names_of_files_that_are_not_there() -> None:
    for url in ("http://127.0.0.1:9/a.mp4", "file:///etc/passwd", "concat:a.mp4|b.mp4", "pipe:0"):
        assert "cannot be read: no such file" in _refused(url)


def test_nothing_but_the_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="refers to other files"):
        _footage._refuse_to_open("http://127.0.0.1/", 1, {})


def test_files_and_frames_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_CLIP_BYTES + 1)
    assert f"has more than {MAX_CLIP_BYTES} bytes" in _refused(tmp_path / "huge")
    with (tmp_path / "huge").open("r+b") as file:
        file.write(b"GIF89a")
        file.truncate(MAX_FILE_BYTES + 1)
    assert f"has more than {MAX_FILE_BYTES} bytes" in _refused(tmp_path / "huge")
    gif = bytearray(files.animation("GIF", 4))
    gif[6:10] = struct.pack("<HH", 6000, 6000)
    assert "has 6000 x 6000 pixels; allowed: at most 33554432" in _refused_file(
        tmp_path, bytes(gif)
    )
    monkeypatch.setattr(_shots, "MAX_CLIP_PIXELS", 64 * 48 - 1)
    for kind in files.VIDEOS:
        message = _refused_file(tmp_path, files.video(kind))
        assert "has 64 x 48 pixels; allowed: " in message


def test_a_decoder_is_told_how_many_pixels_it_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_footage, "MAX_CLIP_PIXELS", 16)
    assert "is damaged: " in _refused_file(tmp_path, files.video("mp4"))


def test_a_later_frame_of_an_animation_may_not_be_larger(tmp_path: Path) -> None:
    content = bytearray(files.animation("GIF", 3))
    place = content.rindex(b"\x21\xf9\x04") + 8
    content[place + 5 : place + 9] = struct.pack("<HH", 60_000, 60_000)
    assert "pixels; allowed: at most 33554432" in _refused_file(tmp_path, bytes(content), 1)


def test_too_many_frames_and_packets_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvsdk._animation.MAX_CLIP_FRAMES", 3)
    monkeypatch.setattr(_footage, "MAX_CLIP_FRAMES", 3)
    for content in (files.video("mp4"), files.animation("GIF"), files.animation("WEBP")):
        assert "has more than 3 frames; make it shorter" in _refused_file(tmp_path, content, 5)
    monkeypatch.undo()
    monkeypatch.setattr(_footage, "MAX_PACKETS", 2)
    assert "has more than 2 packets" in _refused_file(tmp_path, files.video("mp4"), 12)


def test_what_takes_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shots, "MAX_READ_S", 0)
    for content in (files.video("mp4"), files.animation("GIF"), files.animation("WEBP")):
        assert "takes longer than 0 s to read; make it" in _refused_file(tmp_path, content)


@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p", "yuv422p"])
def test_other_kinds_of_pixels_become_rgb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: str
) -> None:
    monkeypatch.setitem(files.VIDEOS, "other", ("mp4", "libx264", pixels))
    clip = _load(tmp_path, files.video("other"), 12)
    assert files.numbers(clip.frames) == list(range(12))


def test_sound_does_not_matter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = files.video("mp4", sound=True)
    capfd.readouterr()
    assert files.numbers(_load(tmp_path, content, 12).frames) == list(range(12))
    assert capfd.readouterr() == ("", "")


def _with_counts(content: bytes, count: int) -> bytes:
    """Let an index promise samples of one size."""
    damaged = bytearray(content)
    sizes, chunks = content.index(b"stsz"), content.index(b"stsc")
    damaged[sizes + 8 : sizes + 16] = struct.pack(">II", 1, count)
    damaged[chunks + 16 : chunks + 20] = struct.pack(">I", count)
    return bytes(damaged)


def test_an_index_that_promises_much_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    content = files.video("mp4")
    most = _boxes.MAX_SAMPLES
    for count in (most + 1, 2**32 - 1):
        message = _refused_file(tmp_path, _with_counts(content, count))
        assert f"promises more than {most} frames and samples" in message
    times = bytearray(content)
    place = content.index(b"stts")
    times[place + 12 : place + 16] = struct.pack(">I", most + 1)
    assert "promises more than" in _refused_file(tmp_path, bytes(times))
    fragments = bytearray(files.video("mp4", movflags="frag_keyframe+empty_moov"))
    place = fragments.index(b"trun")
    fragments[place + 8 : place + 12] = struct.pack(">I", most + 1)
    assert "promises more than" in _refused_file(tmp_path, bytes(fragments))


def test_an_index_that_hides_is_found(tmp_path: Path) -> None:
    content = _with_counts(files.video("mp4"), 2**31)
    for name in (b"free", b"skip", b"udta", b"moof"):
        hidden = content.replace(b"moov", name)
        assert "promises more than" in _refused_file(tmp_path, hidden)
    packed = files.video("mp4").replace(b"udta", b"cmov")
    assert "its index is packed" in _refused_file(tmp_path, packed)


def test_clips_in_fragments_are_read(tmp_path: Path) -> None:
    content = files.video("mp4", movflags="frag_keyframe+empty_moov+default_base_moof")
    assert files.numbers(_load(tmp_path, content, 12).frames) == list(range(12))


@pytest.mark.parametrize("kind", [*files.VIDEOS, "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_files_give_what_is_whole_or_one_line(
    tmp_path: Path, kind: str, share: float
) -> None:
    content = files.video(kind) if kind in files.VIDEOS else files.animation(kind)
    assert "clip'" in _refused_file(tmp_path, content[: int(share * len(content))], 12)


def test_mutated_files_give_a_clip_or_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = [files.video(kind, 6) for kind in files.VIDEOS]
    whole += [files.animation(kind, 6) for kind in ("GIF", "WEBP")]
    capfd.readouterr()  # of the encoders
    chance, slowest = random.Random(7), 0.0
    path = tmp_path / "clip"
    for _ in range(40):
        for content in whole:
            path.write_bytes(files.mutated(content, chance))
            start = time.process_time()
            try:
                assert load_clip(path, frames=4, **SIZE).frames.shape == (4, 24, 32, 3)
            except InputError as exc:
                message = str(exc)
                assert message.isprintable() and len(message) < 300  # noqa: PT018 - or this
                assert str(tmp_path) not in message.split("'", 2)[2]
            slowest = max(slowest, time.process_time() - start)
    assert capfd.readouterr() == ("", "")
    assert slowest < 5


PEAK = """
import sys
from pathlib import Path
import av, numpy
from PIL import Image
from mvsdk.clips import load_clip

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

Image.init()
before = peak()
load_clip(sys.argv[1], frames=8, height=256, width=512)
print(peak() - before >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_few_frames_are_in_memory_at_once(tmp_path: Path, kind: str) -> None:
    shots = np.zeros((24, 1080, 1920, 3), np.uint8)
    (tmp_path / "clip").write_bytes(files.video(kind, clip=shots))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "clip")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 160  # 24 frames are 142 MiB as RGB, 71 as decoders hold them


def test_the_named_suffixes_are_in_lower_case_and_of_what_is_read() -> None:
    assert {suffix.lower() for suffix in SUFFIXES} == SUFFIXES
    assert {".mp4", ".mov", ".webm", ".gif", ".webp"} <= SUFFIXES
