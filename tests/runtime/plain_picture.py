"""docs/pictures.md in plain numbers, with nothing of Pillow: what another language would write."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

BITS = 22
STEP = 1 << 64


def pixels(seed: int, height: int, width: int) -> np.ndarray:
    """Return the bytes of a linear congruential generator, uint8 (height, width, 3)."""
    state, drawn = seed, bytearray(height * width * 3)
    for place in range(len(drawn)):
        state = (6364136223846793005 * state + 1442695040888963407) % STEP
        drawn[place] = state >> 56
    return np.frombuffer(bytes(drawn), np.uint8).reshape(height, width, 3)


def sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def box(rows: int, columns: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of what is kept."""
    kept_rows, kept_columns = rows, columns
    if columns * height > rows * width:
        kept_columns = max(1, (2 * rows * width + height) // (2 * height))
    else:
        kept_rows = max(1, (2 * columns * height + width) // (2 * width))
    return (rows - kept_rows) // 2, (columns - kept_columns) // 2, kept_rows, kept_columns


def cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0


def weights(before: int, after: int) -> list[tuple[int, list[int]]]:
    """Return for each place of the result the first place that it is made of, and the weights."""
    scale = before / after
    wide = max(scale, 1.0)
    inverse = 1.0 / wide
    reach = 2.0 * wide
    found: list[tuple[int, list[int]]] = []
    for place in range(after):
        centre = (place + 0.5) * scale
        first = max(0, math.trunc(centre - reach + 0.5))
        last = min(before, math.trunc(centre + reach + 0.5))
        real = [cubic((x + first - centre + 0.5) * inverse) for x in range(last - first)]
        total = 0.0
        for value in real:
            total += value
        shares = [value / total * (1 << BITS) for value in real]
        found.append((first, [math.trunc(x - 0.5 if x < 0 else x + 0.5) for x in shares]))
    return found


def resize_columns(image: np.ndarray, width: int) -> np.ndarray:
    """Resize to a width, uint8 (H, W, 3)."""
    if image.shape[1] == width:
        return image
    values = image.astype(np.int64)
    out = np.empty((image.shape[0], width, 3), np.uint8)
    for place, (first, shares) in enumerate(weights(image.shape[1], width)):
        part = values[:, first : first + len(shares)]
        total = (part * np.array(shares)[:, None]).sum(axis=1) + (1 << (BITS - 1))
        out[:, place] = np.clip(total >> BITS, 0, 255)
    return out


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    narrow = resize_columns(image, width)
    return resize_columns(narrow.swapaxes(0, 1), height).swapaxes(0, 1)


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left, rows, columns = box(*image.shape[:2], height, width)
    return resize(image[top : top + rows, left : left + columns], height, width)


MATRICES = {
    "display_p3": ((20069, -3685, 0), (-689, 17073, 0), (-322, -1288, 17994)),
    "adobe_rgb": ((22911, -6527, 0), (0, 16384, 0), (0, -703, 17087)),
}


def light(space: str, value: int) -> int:
    """Return the light of one byte, 0 to 65535."""
    v = value / 255
    if space == "adobe_rgb":
        return round(65535 * v ** (563 / 256))
    return round(65535 * (((v + 0.055) / 1.055) ** 2.4 if v >= 0.04045 else v / 12.92))


def byte(amount: int) -> int:
    """Return the byte of sRGB of a light."""
    x = amount / 65535
    return round(255 * (12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055))


def to_srgb(space: str, triple: list[int]) -> list[int]:
    lights = [light(space, value) for value in triple]
    sums = [sum(m * x for m, x in zip(row, lights, strict=True)) for row in MATRICES[space]]
    return [byte(min(max((total + 8192) >> 14, 0), 65535)) for total in sums]


def on_white(value: int, alpha: int) -> int:
    return (value * alpha + 255 * (255 - alpha) + 127) // 255


def from_inks(ink: int, black: int) -> int:
    return max(0, 255 - black - (ink * (255 - black) + 127) // 255)


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored picture, pixel by pixel."""
    h, w = stored.shape[:2]
    place = {
        1: lambda y, x: (y, x),
        2: lambda y, x: (y, w - 1 - x),
        3: lambda y, x: (h - 1 - y, w - 1 - x),
        4: lambda y, x: (h - 1 - y, x),
        5: lambda y, x: (x, y),
        6: lambda y, x: (h - 1 - x, y),
        7: lambda y, x: (h - 1 - x, w - 1 - y),
        8: lambda y, x: (x, w - 1 - y),
    }[orientation]
    rows, columns = (h, w) if orientation < 5 else (w, h)
    return np.array([[stored[place(y, x)] for x in range(columns)] for y in range(rows)], np.uint8)


def places(case: dict[str, Any]) -> list[int] | None:
    """Choose frames by time, in integers only; None if the source is too short."""
    a, b = (int(x) for x in case["clock"].split("/"))
    q = math.floor(1000 * case["fps"] + 0.5)
    kept: list[tuple[int, int]] = []
    for place, tick in enumerate(case["ticks"]):
        if not kept or tick - case["ticks"][0] > kept[-1][1]:
            kept.append((place, tick - case["ticks"][0]))
    end = kept[-1][1] + case["last"]
    last = case["frames"] - 1
    if last > 0 and 1000 * last * b >= end * a * q:
        return None

    def distance(i: int, tick: int) -> int:
        return abs(1000 * i * b - tick * a * q)

    return [min(kept, key=lambda x: distance(i, x[1]))[0] for i in range(last + 1)]
