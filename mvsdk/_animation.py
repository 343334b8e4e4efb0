"""Frames of GIF and WebP animations, as they are shown."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from fractions import Fraction
from typing import TYPE_CHECKING

from mvsdk._shots import MAX_CLIP_FRAMES, Shot, check_size
from mvsdk.errors import InputError
from mvsdk.image._chunks import read_gif, read_webp
from mvsdk.image._essence import Essence
from mvsdk.image._fitting import fit_rows
from mvsdk.image._frames import read_gif_frames
from mvsdk.image._upright import Upright

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MIN_DELAY_MS = 11
"""Shorter delays are taken for none, as browsers do."""
USUAL_DELAY_MS = 100


def is_animation(head: bytes) -> bool:
    """Whether a file that begins so is a GIF or WebP file."""
    return head.startswith((b"GIF87a", b"GIF89a")) or (
        head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    )


def read_animation(name: str, data: bytes) -> Generator[Shot]:
    """Give the frames of a GIF or WebP file one after another.

    Args:
        name: What messages call the file.
        data: The file.

    Raises:
        InputError: If its frames are too large or too many.
        Exception: Whatever the decoder raises of a damaged file.
    """
    from PIL import Image

    if data[:1] == b"G":
        essence = read_gif(data)
        content = read_gif_frames(data, lambda columns, rows: check_size(name, columns, rows))
    else:
        essence, content = read_webp(data), data
    check_size(name, essence.width, essence.height)
    time = Fraction(0)
    with Image.open(io.BytesIO(content), formats=[essence.kind]) as image:
        check_size(name, image.width, image.height)
        for index in range(MAX_CLIP_FRAMES):
            if not _seek(image, index):
                return
            duration = _duration(image)
            yield Shot(time, duration, _fitting(name, image.copy(), essence))
            time += duration
    raise InputError(f"{name} has more than {MAX_CLIP_FRAMES} frames; make it shorter")


def _seek(image: Image, index: int) -> bool:
    """Decode a frame; return whether there is one."""
    try:
        image.seek(index)
    except EOFError:
        return False
    image.load()
    return True


def _duration(image: Image) -> Fraction:
    value = image.info.get("duration", 0)
    shown = isinstance(value, int | float) and value >= MIN_DELAY_MS
    return Fraction(round(value) if shown else USUAL_DELAY_MS, 1000)


def _fitting(name: str, image: Image, essence: Essence) -> Callable[[int, int], NDArray[np.uint8]]:
    picture = Upright(name, image, essence.orientation, essence.space)
    return lambda height, width: fit_rows(picture.rows, picture.shape, height, width)
