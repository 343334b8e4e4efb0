"""Colour spaces that are brought to sRGB: those that phones and cameras write.

A profile is only recognised, by its primaries and its curve; no engine runs what is in it. The
conversion is in whole numbers, so that every runtime computes the same bytes:

    light = LIGHT[v]                             16 bits, of each of the three values v of a pixel
    light = (matrix @ light + 8192) >> 14        cut off to 0 ... 65535
    v     = VALUE[light]

where `LIGHT[v] = round(65535 * f(v / 255))` with the curve f of the space, and `VALUE` is the same
of the inverse of the curve of sRGB: `VALUE[x] = round(255 * g(x / 65535))`.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PROFILE_BYTES = 1 << 14
"""Largest profile that is looked at; those below take about 600 bytes."""

_MAX_TAGS = 64
_NEAR_COLORANT = 2e-3
_NEAR_CURVE = 4e-3  # one step of 8 bits
_SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # g, a, b, c, d of ICC's curve 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A colour space of red, green and blue."""

    name: str
    colorants: tuple[tuple[float, float, float], ...]
    """XYZ of red, green and blue, adapted to D50 as profiles have them."""
    curve: tuple[float, float, float, float, float]
    """g, a, b, c, d: a value v >= d is the light (a v + b)^g, and c v below."""
    matrix: tuple[tuple[int, int, int], ...]
    """From light in this space to light in sRGB, times 2^14; rows add up to 2^14."""


DISPLAY_P3 = Space(
    name="Display P3",
    colorants=(
        (0.51512, 0.24120, -0.00105),
        (0.29198, 0.69225, 0.04189),
        (0.15710, 0.06657, 0.78407),
    ),
    curve=_SRGB,
    matrix=((20069, -3685, 0), (-689, 17073, 0), (-322, -1288, 17994)),
)
ADOBE_RGB = Space(
    name="Adobe RGB (1998)",
    colorants=(
        (0.60974, 0.31111, 0.01947),
        (0.20528, 0.62567, 0.06087),
        (0.14919, 0.06322, 0.74457),
    ),
    curve=(563 / 256, 1.0, 0.0, 0.0, 0.0),
    matrix=((22911, -6527, 0), (0, 16384, 0), (0, -703, 17087)),
)
SPACES = (DISPLAY_P3, ADOBE_RGB)


def find_space(profile: bytes) -> Space | None:
    """Recognise the colour space of an ICC profile.

    Returns:
        One of `SPACES`, or None for any other profile, and for one that cannot be read.
    """
    if len(profile) > MAX_PROFILE_BYTES or profile[16:24] != b"RGB XYZ ":
        return None
    try:
        tags = _read_tags(profile)
        colorants = [_read_colorant(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        curves = [_read_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
    except (KeyError, ValueError, struct.error):
        return None
    for space in SPACES:
        reference = _light(space.curve, np.linspace(0, 1, 256))
        if np.abs(np.subtract(colorants, space.colorants)).max() <= _NEAR_COLORANT and all(
            np.abs(curve - reference).max() <= _NEAR_CURVE for curve in curves
        ):
            return space
    return None


def convert_to_srgb(pixels: NDArray[np.uint8], space: Space) -> NDArray[np.uint8]:
    """Bring pixels of another colour space to sRGB.

    Args:
        pixels: RGB, uint8, (H, W, 3).
        space: What their values are in.

    Returns:
        RGB, uint8, (H, W, 3). Colours beyond sRGB are cut off.
    """
    light = _light_table(space)[pixels]  # (H, W, 3)
    values = _value_table()
    converted = np.empty_like(pixels)
    for channel, row in enumerate(space.matrix):
        total = sum(light[..., i] * weight for i, weight in enumerate(row) if weight)
        np.take(values, np.clip((total + 8192) >> 14, 0, 65535), out=converted[..., channel])
    return converted


def _light(curve: tuple[float, ...], values: NDArray[np.float64]) -> NDArray[np.float64]:
    g, a, b, c, d = curve
    # Where the line holds, the base of the power may be negative.
    return np.where(values >= d, np.maximum(a * values + b, 0) ** g, c * values)


@functools.cache
def _light_table(space: Space) -> NDArray[np.int32]:
    return np.rint(65535 * _light(space.curve, np.arange(256) / 255)).astype(np.int32)


@functools.cache
def _value_table() -> NDArray[np.uint8]:
    light = np.arange(65536) / 65535
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * values).astype(np.uint8)


def _read_tags(profile: bytes) -> dict[bytes, bytes]:
    """Return the tags of a profile: signature -> content, which starts with its type."""
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > _MAX_TAGS:
        raise ValueError(count)
    tags: dict[bytes, bytes] = {}
    for index in range(count):
        name, place, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        tags[name] = profile[place : place + size]
    return tags


def _read_colorant(tag: bytes) -> tuple[float, ...]:
    kind, *values = struct.unpack_from(">4s4x3i", tag)
    if kind != b"XYZ ":
        raise ValueError(kind)
    return tuple(value / 65536 for value in values)


def _read_curve(tag: bytes) -> NDArray[np.float64]:
    """Return the light of 256 values between 0 and 1."""
    values = np.linspace(0, 1, 256)
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">8xH", tag)
        count = {0: 1, 3: 5, 4: 7}.get(kind, 0)
        numbers = [x / 65536 for x in struct.unpack_from(f">{count}i", tag, 12)]
        if not count or not 0 < numbers[0] < 10 or any(numbers[5:]):
            raise ValueError(kind)
        return _light((*numbers[:5], 1.0, 0.0, 0.0, 0.0)[:5], values)
    kind, count = struct.unpack_from(">4s4xI", tag)
    if kind != b"curv" or not 0 < count <= MAX_PROFILE_BYTES:
        raise ValueError(kind)
    points = struct.unpack_from(f">{count}H", tag, 12)
    if count == 1:
        return values ** (points[0] / 256)
    return np.interp(values, np.linspace(0, 1, count), np.array(points) / 65535)
