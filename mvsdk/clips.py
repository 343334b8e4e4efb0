"""The clip that another begins with: read with care, its frames chosen, cropped and resized.

What is taken of a file, and how its frames become bytes, is docs/pictures.md. A video file comes
from anywhere: its bytes, pixels, frames and the time that it takes are bounded, it is read by
demuxers and decoders of a list, and nothing but the file itself is opened.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from mvsdk._animation import is_animation, read_animation
from mvsdk._arguments import check_number, check_path, check_whole_number, shown
from mvsdk._footage import find_demuxer, read_footage
from mvsdk._shots import Shot, check_size, exact_rate, take
from mvsdk._text import quoted, reason_of
from mvsdk.errors import InputError, PictureNotFoundError
from mvsdk.image import MAX_FILE_BYTES, as_input_errors, fit_image, load_image
from mvsdk.manifest.programs import MAX_FPS, MAX_FRAMES, MAX_SIDE, MIN_FPS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.image import ImageSource

    ClipSource = str | os.PathLike[str] | NDArray[np.uint8] | Sequence[ImageSource]
    """A file, frames as uint8 (F, H, W, 3), or pictures."""

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".gif", ".webp"})
"""What names of such files end with, in lower case. A file is read by its content, not its name."""
MAX_CLIP_BYTES = 1 << 32
"""Largest video file that is read; of animations, `mvsdk.image.MAX_FILE_BYTES`."""

MAX_RESULT_PIXELS = 1 << 29
"""Pixels of all frames of the result together, 1.5 GiB."""

_KNOWN = "MP4, MOV, WebM, Matroska, AVI, GIF or WebP"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceClip:
    """Frames of a source, at the size of a bundle's clip."""

    frames: NDArray[np.uint8]
    """RGB, uint8, (F, H, W, 3)."""
    fps: float | None
    """Frames per second of the source; None for pictures and arrays, which have no clock."""


def load_clip(
    source: ClipSource, *, frames: int, height: int, width: int, fps: float | None = None
) -> SourceClip:
    """Read the beginning of a clip and fit it to the size of a bundle's.

    Args:
        source: A video file, an animation (GIF, WebP), frames as uint8 (F, H, W, 3), or a list of
            pictures, each of which may be whatever `mvsdk.image.load_image` takes.
        frames: Frames of the result.
        height: Rows of the result.
        width: Columns of the result.
        fps: Frames per second that the result is to have, in thousandths: of a file, each frame is
            the one that is nearest in time. None takes one frame after another, and so it is with
            pictures and arrays, which have no clock.

    Returns:
        The first `frames` frames, each cropped and resized as a picture is.

    Raises:
        PictureNotFoundError: If there is no such file; this is a FileNotFoundError too.
        InputError: If it is too short, too large, damaged or of another format, or a number is not
            allowed.
    """
    shape = _check_shape(frames, height, width)
    rate = None if fps is None else _check_rate(fps)
    if isinstance(source, str | os.PathLike):
        return _load_file(check_path("the clip", source, example="clip.mp4"), shape, rate)
    if isinstance(source, np.ndarray):
        return SourceClip(frames=_fit_array(source, shape), fps=None)
    if isinstance(source, list | tuple):
        return SourceClip(frames=_fit_pictures(source, shape), fps=None)
    raise InputError(
        f"the clip is {shown(source)}; allowed: a path, frames as uint8 (F, H, W, 3), or a list of "
        "pictures"
    )


def _check_shape(frames: int, height: int, width: int) -> tuple[int, int, int]:
    shape = (
        check_whole_number("frames", frames, low=1, high=MAX_FRAMES),
        check_whole_number("height", height, low=1, high=MAX_SIDE),
        check_whole_number("width", width, low=1, high=MAX_SIDE),
    )
    if math.prod(shape) > MAX_RESULT_PIXELS:
        raise InputError(
            f"{frames} frames of {width} x {height} are wanted; allowed: at most "
            f"{MAX_RESULT_PIXELS} pixels in all; take fewer or smaller ones"
        )
    return shape


def _check_rate(fps: float) -> Fraction:
    return exact_rate(check_number("fps", fps, low=MIN_FPS, high=MAX_FPS))


def _fit_array(frames: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    count, height, width = shape
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise InputError(
            f"the clip is {frames.dtype} {frames.shape}; allowed: RGB as uint8 (F, H, W, 3) with "
            "no empty axis"
        )
    _check_count(len(frames), count)
    check_size("the clip", frames.shape[2], frames.shape[1])
    return np.stack([fit_image(frame, height, width) for frame in frames[:count]])


def _fit_pictures(
    pictures: Sequence[ImageSource], shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    count, height, width = shape
    _check_count(len(pictures), count)
    clip = np.empty((*shape, 3), np.uint8)
    for place, picture in enumerate(pictures[:count]):
        try:
            clip[place] = load_image(picture, height, width)
        except PictureNotFoundError:
            raise  # it names its file
        except InputError as exc:
            raise InputError(f"frame {place} of the clip: {exc}") from exc
    return clip


def _check_count(count: int, wanted: int) -> None:
    if count < wanted:
        raise InputError(f"the clip ends after frame {count}; wanted: {wanted}; add some")


def _load_file(path: Path, shape: tuple[int, int, int], fps: Fraction | None) -> SourceClip:
    name = f"clip {quoted(path)}"
    with (
        _opened(name, path) as (file, size),
        as_input_errors(name),
        contextlib.closing(_shots(name, file, size)) as shots,
    ):
        taken = take(name, shots, shape, fps)
    return SourceClip(frames=taken.frames, fps=_shown_rate(taken.rate))


def _shown_rate(rate: Fraction | None) -> float | None:
    return None if rate is None else math.floor(1000 * rate + Fraction(1, 2)) / 1000


def _shots(name: str, file: BinaryIO, size: int) -> Generator[Shot]:
    """Give the frames of a file, by what its first bytes say that it is."""
    head = file.read(16)
    if is_animation(head):
        if size > MAX_FILE_BYTES:
            raise InputError(f"{name} has more than {MAX_FILE_BYTES} bytes; make it smaller")
        data = head + file.read(MAX_FILE_BYTES - len(head))
        return read_animation(name, data)
    if find_demuxer(head) is None:
        raise InputError(f"{name} is no {_KNOWN} file; convert it to one")
    return read_footage(name, file, size)


@contextlib.contextmanager
def _opened(name: str, path: Path) -> Generator[tuple[BinaryIO, int]]:
    """Open a regular file of bounded size; a pipe or device could keep us waiting for ever."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is not a regular file; give the path of an {_KNOWN} file")
        if status.st_size > MAX_CLIP_BYTES:
            raise InputError(f"{name} has more than {MAX_CLIP_BYTES} bytes; make it smaller")
        file = path.open("rb")
    except (OSError, ValueError) as exc:  # ValueError: a null byte in the path
        if isinstance(exc, InputError):
            raise
        message = f"{name} cannot be read: {reason_of(exc)}; give the path of an {_KNOWN} file"
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            raise PictureNotFoundError(message, str(path)) from exc
        raise InputError(message) from exc
    with file:
        yield cast("BinaryIO", file), status.st_size
