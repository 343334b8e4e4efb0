"""Frames of a source: their bounds, and which of them a clip takes (docs/pictures.md)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvsdk.errors import InputError
from mvsdk.image import MAX_SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CLIP_PIXELS = 1 << 25
"""Pixels of the largest frame, 8K: decoders keep up to 16 of them."""
MAX_CLIP_FRAMES = 1 << 15
"""Frames of a source that are decoded, up to the last that is taken."""
MAX_READ_S = 120.0
"""Seconds of the clock that reading one file may take."""

_PIXELS = f"allowed: at most {MAX_CLIP_PIXELS} in all, and {MAX_SIDE} a side"


class Shot(NamedTuple):
    """One frame of a source."""

    time: Fraction
    """When it is shown, in seconds of the source's own clock."""
    duration: Fraction
    """How long, if it is the last one; 0 if nothing says so."""
    fit: Callable[[int, int], NDArray[np.uint8]]
    """(height, width) -> RGB, uint8, (height, width, 3)."""
    rate: Fraction | None = None
    """Frames of the source a second, if the source says."""


class Taken(NamedTuple):
    """The frames of a clip."""

    frames: NDArray[np.uint8]
    """RGB, uint8, (F, H, W, 3)."""
    rate: Fraction | None
    """Frames of the source a second: what it says, else of those met; None where one was met."""


def check_size(name: str, width: int, height: int) -> None:
    """Check that a frame is within bounds.

    Raises:
        InputError: If it is too large.
    """
    if width * height > MAX_CLIP_PIXELS or max(width, height) > MAX_SIDE:
        raise InputError(f"{name} has {width} x {height} pixels; {_PIXELS}; make it smaller")


def check_time(name: str, start: float) -> None:
    """Check that reading has not taken too long since a time of `time.monotonic`.

    Raises:
        InputError: If it has.
    """
    if time.monotonic() - start > MAX_READ_S:
        raise InputError(
            f"{name} takes longer than {MAX_READ_S:g} s to read; make it smaller or shorter"
        )


def exact_rate(fps: float) -> Fraction:
    """Return frames per second in whole thousandths, halves up."""
    return Fraction(math.floor(1000 * fps + 0.5), 1000)


def take(
    name: str, shots: Iterable[Shot], shape: tuple[int, int, int], fps: Fraction | None
) -> Taken:
    """Choose frames and fit them.

    Args:
        name: What messages call the source.
        shots: Its frames, in the order in which they are shown.
        shape: Frames, rows and columns of the clip.
        fps: Frames per second of the clip; None takes one frame after another.

    Raises:
        InputError: If the source is too short.
    """
    frames, height, width = shape
    clip = np.empty((*shape, 3), np.uint8)
    watch = _Watch(name, shots)
    chosen = iter(watch) if fps is None else _nearest(watch, frames, fps)
    place, last = 0, None
    for place, shot in enumerate(chosen, 1):
        clip[place - 1] = clip[place - 2] if shot is last else shot.fit(height, width)
        last = shot
        if place == frames:
            return Taken(clip, watch.rate)
    raise InputError(f"{name} {_too_short(watch, frames, fps)}")


class _Watch:
    """Frames in rising order of their time, and what was met of them."""

    def __init__(self, name: str, shots: Iterable[Shot]) -> None:
        self._name = name
        self._shots = shots
        self.count = 0
        self.seconds = Fraction(0)
        """Until the last frame is shown."""
        self.end = Fraction(0)
        """Until it is no longer."""
        self._said: Fraction | None = None

    def __iter__(self) -> Iterator[Shot]:
        start = time.monotonic()
        first: Fraction | None = None
        for shot in self._shots:
            check_time(self._name, start)
            first = shot.time if first is None else first
            since = shot.time - first
            if self.count and since <= self.seconds:
                continue  # nobody could see the one before
            self.count += 1
            self._said = shot.rate
            self.seconds, self.end = since, since + shot.duration
            yield shot._replace(time=since)

    @property
    def rate(self) -> Fraction | None:
        met = (self.count - 1) / self.seconds if self.count > 1 else None
        return self._said or met


def _nearest(watch: _Watch, frames: int, fps: Fraction) -> Iterator[Shot]:
    """Give for each frame of a clip the frame of the source that is nearest in time.

    Containers round times, to 1 ms or 10 ms: the last frame that is not later than a time might
    then be the one before what is meant, and one would come twice.
    """
    place = 0
    before: Shot | None = None
    for shot in watch:
        while before and place < frames and 2 * place / fps <= before.time + shot.time:
            yield before
            place += 1
        if place == frames:
            return
        before = shot
    while before and (place == 0 or place / fps < watch.end):
        yield before
        place += 1


def _too_short(watch: _Watch, frames: int, fps: Fraction | None) -> str:
    if not watch.count:
        return "holds no frame that can be read; save it again"
    if fps is None:
        return f"ends after frame {watch.count}; wanted: {frames}; choose a longer one"
    return (
        f"lasts {float(watch.end):.3g} s; wanted: {frames} frames at {float(fps):g} fps, more than "
        f"{float((frames - 1) / fps):.3g} s; choose a longer one, or more frames per second"
    )
