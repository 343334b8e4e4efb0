"""A picture cropped and resized to the size of a clip, to the byte as docs/pictures.md has it.

The middle of the picture is cut out at a whole-number box and resized by cubic convolution: columns
first, then rows, with bytes between. Pillow's own resize does each pass alone, so that its version
does not choose which comes first. No function of a library is asked for a coefficient, as Lanczos
would ask for sines, whose last bit differs between platforms.

Reference:
    Keys 1981, "Cubic convolution interpolation for digital image processing", a = -1/2, widened
    when it makes smaller; in fixed point as in Pillow's src/libImaging/Resample.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BAND_PIXELS = 1 << 20

Rows = Callable[[int, int], NDArray[np.uint8]]
"""(first, last) -> those rows of a picture, RGB, uint8, (last - first, W, 3)."""


class Box(NamedTuple):
    """What of a picture is kept, in whole pixels."""

    top: int
    left: int
    height: int
    width: int


def find_box(shape: tuple[int, int], target: tuple[int, int]) -> Box:
    """Find the middle of a picture at the aspect of a clip.

    Args:
        shape: Rows and columns of the picture.
        target: Rows and columns of the clip.

    Returns:
        A box as high or as wide as the picture. Its other side is rounded, halves up, and is at
        least 1; of an odd rest the larger part is below or to the right.
    """
    (rows, columns), (height, width) = shape, target
    kept_rows, kept_columns = rows, columns
    if columns * height > rows * width:
        kept_columns = max(1, (2 * rows * width + height) // (2 * height))
    else:
        kept_rows = max(1, (2 * columns * height + width) // (2 * width))
    return Box((rows - kept_rows) // 2, (columns - kept_columns) // 2, kept_rows, kept_columns)


def fit_rows(rows: Rows, shape: tuple[int, int], height: int, width: int) -> NDArray[np.uint8]:
    """Fit a picture that is at hand a band of rows at a time.

    Args:
        rows: The picture.
        shape: Its rows and columns.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        RGB, uint8, (height, width, 3).
    """
    box = find_box(shape, (height, width))
    narrow = np.empty((box.height, width, 3), np.uint8)
    for start, stop in bands(box.top, box.top + box.height, shape[1]):
        band = rows(start, stop)[:, box.left : box.left + box.width]
        narrow[start - box.top : stop - box.top] = _resized(band, stop - start, width)
    return _resized(narrow, height, width)


def bands(first: int, last: int, columns: int) -> Iterator[tuple[int, int]]:
    """Cut rows into bands of about `BAND_PIXELS`."""
    step = max(1, BAND_PIXELS // columns)
    for start in range(first, last, step):
        yield start, min(start + step, last)


def _resized(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize in one direction; what has the size already stays as it is."""
    if pixels.shape[:2] == (height, width):
        return pixels
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))
