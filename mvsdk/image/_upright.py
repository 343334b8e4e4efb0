"""Decoded pictures made upright RGB, a band of rows at a time.

A picture of 8192 x 8192 pixels takes a quarter of a gigabyte in the decoder's own form. Turned,
laid on white, converted and handed to numpy as a whole it would take that several times over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvsdk.errors import InputError
from mvsdk.image._colours import Space, convert_to_srgb
from mvsdk.image._fitting import Rows, bands

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_GREY_16 = 2**16 - 1
_COLOURED = frozenset({"RGB", "RGBA", "RGBX", "P", "PA", "YCbCr"})
"""Modes that a profile of red, green and blue can speak of."""

_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation -> what of Pillow undoes it."""
_SIDEWAYS = frozenset({5, 6, 7, 8})
_FROM_THE_END = frozenset({3, 4, 7, 8})


class Upright(NamedTuple):
    """A decoded picture as it is meant to be seen."""

    name: str
    """What messages call it."""
    image: Image
    orientation: int = 1
    """Of EXIF, 1 to 8."""
    space: Space | None = None
    """What its colours are in; None for sRGB."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        width, height = self.image.size
        return (width, height) if self.orientation in _SIDEWAYS else (height, width)

    def rows(self, first: int, last: int) -> NDArray[np.uint8]:
        """Return rows as RGB, uint8, (last - first, W, 3).

        Raises:
            InputError: If they hold what 8 bits cannot.
        """
        from PIL.Image import Transpose

        width, height = self.image.size
        if self.orientation in _FROM_THE_END:
            first, last = self.shape[0] - last, self.shape[0] - first
        sideways = self.orientation in _SIDEWAYS
        band = self.image.crop((first, 0, last, height) if sideways else (0, first, width, last))
        if self.orientation in _TURNS:
            band = band.transpose(Transpose[_TURNS[self.orientation]])
        pixels = np.array(_convert_to_rgb(self.name, band))
        if self.space is not None and self.image.mode in _COLOURED:
            return convert_to_srgb(pixels, self.space)
        return pixels


def stack_rows(rows: Rows, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Put all rows of a picture of (H, W) into one array, RGB, uint8, (H, W, 3)."""
    pixels = np.empty((*shape, 3), np.uint8)
    for start, stop in bands(0, *shape):
        pixels[start:stop] = rows(start, stop)
    return pixels


def _convert_to_rgb(name: str, image: Image) -> Image:
    """Convert any mode to RGB."""
    from PIL import Image as image_module

    if image.mode == "F":
        raise InputError(f"{name} holds floating-point pixels; allowed: 8 or 16 bits; convert it")
    if image.mode[0] == "I":
        values = np.array(image)
        grey = _from_16_bits(name, values)
        if image.has_transparency_data:  # one value of 16 bits, which stands for nothing
            grey[values == image.info["transparency"]] = 255
        return image_module.fromarray(grey).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = image_module.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _from_16_bits(name: str, grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Bring grey of 16 bits to 8; Pillow itself would clip it."""
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > _GREY_16:
        raise InputError(f"{name} holds grey beyond 16 bits; allowed: 8 or 16 bits; convert it")
    return ((values + 128) // 257).astype(np.uint8)
