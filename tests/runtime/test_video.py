"""Clips on disk: right pixels, right times, and all or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvsdk import InputError, OutputError, Video
from mvsdk._text import quoted
from mvsdk.video import check_folder

SUFFIXES = [".mp4", ".webp", ".gif", ".png", ".npy"]


def _frames(count: int = 8, height: int = 64, width: int = 64) -> np.ndarray:
    """Return a red square that moves right over a blue ground."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = (40, 90, 160)
    for index, frame in enumerate(frames):
        left = index * (width - 16) // max(count - 1, 1)
        frame[height // 4 : height // 4 + 16, left : left + 16] = (230, 40, 30)
    return frames


def _video(frames: np.ndarray | None = None, fps: float = 8.0) -> Video:
    return Video(frames=_frames() if frames is None else frames, fps=fps, seed=1, prompt="a square")


def _decode_mp4(path: Path) -> tuple[np.ndarray, Any]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        codec = stream.codec_context
        told = {
            "codec": codec.name,
            "pixels": codec.pix_fmt,
            "rate": float(stream.average_rate),
            "duration_s": float(stream.duration * stream.time_base),
            "colours": (codec.colorspace, codec.color_primaries, codec.color_trc),
        }
    return frames, told


def _open_image(path: Path) -> tuple[list[np.ndarray], list[int], int | None]:
    """Return the frames of an animation, their times in milliseconds, and its loop count."""
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(path) as image:
        frames: list[np.ndarray] = []
        durations: list[int] = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info.get("duration", 0))
        return frames, durations, image.info.get("loop")


def test_mp4_holds_every_frame_enlarged_with_the_right_colours(tmp_path: Path) -> None:
    path = _video().save(tmp_path / "clip.mp4")
    decoded, told = _decode_mp4(path)
    assert told == {
        "codec": "h264",
        "pixels": "yuv420p",
        "rate": 8.0,
        "duration_s": 1.0,
        "colours": (1, 1, 1),
    }
    assert decoded.shape == (8, 256, 256, 3)
    expected = _frames().repeat(4, axis=1).repeat(4, axis=2)
    assert np.abs(decoded.astype(int) - expected).mean() < 2


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((64, 64), 1, (64, 64)),
        ((64, 96), None, (256, 384)),
        ((100, 100), None, (300, 300)),
        ((300, 400), None, (300, 400)),
        ((33, 35), 1, (34, 36)),
        ((16, 18), 3, (48, 54)),
    ],
)
def test_mp4_is_enlarged_by_whole_numbers_to_even_sides(
    tmp_path: Path, size: tuple[int, int], scale: int | None, expected: tuple[int, int]
) -> None:
    path = _video(_frames(2, *size)).save(tmp_path / "clip.mp4", scale=scale)
    assert _decode_mp4(path)[0].shape == (2, *expected, 3)


def test_mp4_keeps_fractional_rates(tmp_path: Path) -> None:
    path = _video(fps=30000 / 1001).save(tmp_path / "clip.mp4")
    assert _decode_mp4(path)[1]["rate"] == pytest.approx(30000 / 1001)
    path = _video().save(tmp_path / "clip.mp4", fps=12.5)
    assert _decode_mp4(path)[1]["rate"] == 12.5


def test_webp_is_exact(tmp_path: Path) -> None:
    frames, durations, loop = _open_image(_video().save(tmp_path / "clip.webp"))
    assert np.array_equal(np.stack(frames), _frames())
    assert sum(durations) == 1000
    assert loop == 0


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".npy"])
@pytest.mark.parametrize(("scale", "side"), [(None, 64), (1, 64), (4, 256)])
def test_other_kinds_keep_the_pixels_unless_told(
    tmp_path: Path, suffix: str, scale: int | None, side: int
) -> None:
    path = _video().save(tmp_path / f"clip{suffix}", scale=scale)
    frames = np.load(path) if suffix == ".npy" else np.stack(_open_image(path)[0])
    assert frames.shape == (8, side, side, 3)
    times = side // 64
    expected = _frames().repeat(times, axis=1).repeat(times, axis=2)
    assert np.abs(frames.astype(int) - expected).max() <= (8 if suffix == ".gif" else 0)


def test_a_sheet_is_enlarged_when_told(tmp_path: Path) -> None:
    (sheet,), _, _ = _open_image(_video().save(tmp_path / "sheet.png", scale=4))
    assert sheet.shape == (2 * 256, 4 * 256, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sides_that_no_file_holds_are_refused_with_the_largest_scale(
    tmp_path: Path, suffix: str
) -> None:
    video = _video(np.zeros((1, 2, 600, 3), np.uint8))
    with pytest.raises(InputError, match="scale is 64; allowed: 1 to 27 for 600 x 2 pixels"):
        video.save(tmp_path / f"clip{suffix}", scale=64)
    assert list(tmp_path.iterdir()) == []


def test_a_long_thin_clip_is_enlarged_as_far_as_a_file_holds(tmp_path: Path) -> None:
    path = _video(np.zeros((1, 2, 600, 3), np.uint8)).save(tmp_path / "clip.mp4")
    assert _decode_mp4(path)[0].shape == (1, 54, 16200, 3)


def test_gif_keeps_colours_closely_and_the_whole_time(tmp_path: Path) -> None:
    frames, durations, loop = _open_image(_video().save(tmp_path / "clip.gif"))
    assert np.abs(np.stack(frames).astype(int) - _frames()).max() <= 8
    assert sum(durations) == 1000
    assert set(durations) <= {120, 130}
    assert loop == 0


@pytest.mark.parametrize(("loop", "stored"), [(0, 0), (1, None), (3, 2)])
def test_gif_plays_as_often_as_asked(tmp_path: Path, loop: int, stored: int | None) -> None:
    assert _open_image(_video().save(tmp_path / "clip.gif", loop=loop))[2] == stored


def test_webp_plays_as_often_as_asked(tmp_path: Path) -> None:
    assert _open_image(_video().save(tmp_path / "clip.webp", loop=3))[2] == 3


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (8, 4, 2), (14, 7, 2), (13, 4, 4), (16, 4, 4)]
)
def test_png_shows_all_frames_in_reading_order(
    tmp_path: Path, count: int, columns: int, rows: int
) -> None:
    frames = np.zeros((count, 2, 3, 3), np.uint8)
    frames[:] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    (sheet,), _, _ = _open_image(_video(frames).save(tmp_path / "sheet.png"))
    assert sheet.shape == (rows * 2, columns * 3, 3)
    for index in range(count):
        row, column = divmod(index, columns)
        assert (sheet[row * 2 : row * 2 + 2, column * 3 : column * 3 + 3] == index).all()


def test_npy_holds_the_frames_as_they_are(tmp_path: Path) -> None:
    loaded = np.load(_video().save(tmp_path / "clip.npy"), allow_pickle=False)
    assert np.array_equal(loaded, _frames())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_clips_give_equal_files(tmp_path: Path, suffix: str) -> None:
    first = _video().save(tmp_path / f"a{suffix}").read_bytes()
    assert _video().save(tmp_path / f"b{suffix}").read_bytes() == first


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_save_replaces_the_file_and_leaves_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix.upper()}"
    path.write_bytes(b"old")
    assert _video().save(str(path)) == path
    assert path.read_bytes()[:3] != b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    """The limit on file size of a child process stands for a full disk."""
    pytest.importorskip("resource")
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(b"old")
    code = (
        "import resource, sys, numpy as np; from mvsdk import Video, OutputError\n"
        "frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)\n"
        "video = Video(frames=frames, fps=8, seed=0, prompt='noise')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: video.save(sys.argv[1])\n"
        "except OutputError as exc: print(exc)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"cannot write {quoted(path)}: file too large; nothing was kept\n"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_save_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(temporary: Path, target: Path) -> None:
        assert temporary.stat().st_size > 0
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _video().save(tmp_path / "clip.npy")
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffixes_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("clip.avi", "clip"):
        with pytest.raises(InputError, match=r"allowed: \.mp4, \.webp, \.gif, \.png, \.npy"):
            _video().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_a_null_byte_is_refused() -> None:
    with pytest.raises(InputError, match="allowed: names without null bytes"):
        _video().save("a\0.webp")


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no folder .*; make it first"):
        _video().save(tmp_path / "missing" / "clip.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        _video().save(tmp_path / "folder.mp4")


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match="is not writable"):
        check_folder(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
    ],
    ids=["float", "one frame", "alpha", "none"],
)
def test_frames_that_are_no_clip_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"allowed: uint8 \(F, H, W, 3\)"):
        _video(frames)


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0},
        {"fps": 0.01},
        {"fps": float("nan")},
        {"fps": 1000},
        {"scale": 0},
        {"scale": 65},
        {"loop": -1},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="allowed"):
        _video().save(tmp_path / "clip.webp", **options)
    assert list(tmp_path.iterdir()) == []
