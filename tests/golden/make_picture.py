"""Cases of docs/pictures.md, as the runtime computes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvsdk._shots import Shot, exact_rate, take
from mvsdk.errors import InputError
from mvsdk.image import fit_image, read_image
from mvsdk.image._colours import SPACES, _light_table, _value_table, convert_to_srgb
from mvsdk.image._fitting import find_box
from mvsdk.image._upright import Upright

MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407
WHOLE_BYTES = 200
"""Results of so many bytes or fewer stand whole."""

CLIPS = ((256, 512), (320, 480), (480, 832), (512, 512), (64, 64), (7, 3))
PICTURES = (
    *((1, 1), (1, 1000), (1000, 1), (65535, 1), (1, 65535), (2, 3), (3024, 4032), (4032, 3024)),
    *((1080, 1920), (1920, 1080)),
)
RESIZES: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = (
    *(((2, 2), (4, 4)), ((4, 4), (2, 2)), ((3, 5), (3, 5)), ((5, 3), (4, 7)), ((1, 1), (3, 5))),
    *(((1, 9), (1, 4)), ((9, 1), (4, 1)), ((1, 4), (1, 9)), ((6, 4), (6, 8)), ((6, 4), (3, 4))),
    *(((16, 16), (5, 5)), ((7, 11), (1, 1)), ((3, 3), (8, 8)), ((2, 7), (3, 7)), ((8, 2), (1, 6))),
    *(((90, 70), (32, 48)), ((31, 33), (64, 64)), ((64, 64), (31, 33)), ((128, 3), (3, 128))),
    *(((200, 2), (50, 40)), ((2, 200), (40, 50)), ((1, 255), (16, 16)), ((255, 1), (16, 16))),
    *(((100, 100), (100, 37)), ((100, 100), (37, 100)), ((3, 256), (256, 3)), ((48, 48), (1, 48))),
    *(((120, 160), (64, 96)), ((150, 100), (33, 22)), ((17, 19), (256, 5)), ((99, 2), (2, 99))),
)
FITS = (
    *(((20, 60), (10, 10)), ((60, 20), (10, 10)), ((13, 17), (16, 8)), ((90, 160), (32, 48))),
    *(
        ((1, 40), (8, 8)),
        ((40, 1), (8, 8)),
        ((101, 37), (32, 64)),
        ((5, 4), (5, 4)),
        ((7, 9), (3, 3)),
    ),
)
TRIPLES = (
    *(
        [0, 0, 0],
        [255, 255, 255],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [1, 1, 1],
        [128, 128, 128],
    ),
    *([10, 11, 10], [254, 255, 253], [200, 100, 50], [50, 200, 100], [12, 240, 7], [3, 0, 2]),
)
DELAYS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("30 frames a second", "1/30", tuple(range(24))),
    ("NTSC", "1001/30000", tuple(range(24))),
    ("milliseconds, rounded", "1/1000", (0, 33, 67, 100, 133, 167, 200, 233, 267, 300, 333, 367)),
    ("hundredths, rounded", "1/100", (0, 3, 7, 10, 13, 17, 20, 23, 27, 30, 33, 37)),
    ("of no rate", "1/90000", (0, 2700, 2701, 9000, 20000, 20000, 19000, 31111, 45000, 90000)),
    ("that begins late", "1/1000", (500, 541, 583, 625, 666, 708, 750)),
    ("one frame", "1/25", (3,)),
)
RATES = ((30.0, 12), (15.0, 5), (24.0, 8), (8.0, 3), (60.0, 20), (29.97, 10), (0.1, 1), (7.5, 4))


def build_picture() -> dict[str, list[dict[str, Any]]]:
    """Give boxes, resizes, turns, colours and times."""
    return {
        "generator": [
            {"multiplier": str(MULTIPLIER), "increment": str(INCREMENT), "modulus": "2^64"}
        ],
        "boxes": [_box(*case) for case in _sizes()],
        "resizes": [_resize(seed, *case) for seed, case in enumerate(RESIZES, 1)],
        "fits": [_fit(seed, *case) for seed, case in enumerate(FITS, 101)],
        "turns": [_turn(orientation) for orientation in range(1, 9)],
        "tables": [*_tables()],
        "colours": [*_colours()],
        "white": [*_grid("value", "alpha", _on_white)],
        "inks": [*_grid("ink", "black", _from_inks)],
        "grey_16": [_grey(value) for value in (0, 128, 129, 257, 514, 32768, 65406, 65407, 65535)],
        "times": [_times(*source, *target) for source in DELAYS for target in RATES],
    }


def pixels(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return the bytes of the generator, uint8 (height, width, 3)."""
    state, drawn = seed, bytearray(height * width * 3)
    for place in range(len(drawn)):
        state = (MULTIPLIER * state + INCREMENT) % 2**64
        drawn[place] = state >> 56
    return np.frombuffer(bytes(drawn), np.uint8).reshape(height, width, 3)


def _sizes() -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    return ((picture, clip) for picture in PICTURES for clip in CLIPS)


def _box(picture: tuple[int, int], clip: tuple[int, int]) -> dict[str, Any]:
    return {"picture": picture, "clip": clip, **find_box(picture, clip)._asdict()}


def _resize(seed: int, size: tuple[int, int], target: tuple[int, int]) -> dict[str, Any]:
    """Resize in two passes, whatever the aspect."""
    image = Image.fromarray(pixels(seed, *size))
    narrow = image.resize((target[1], size[0]), Image.Resampling.BICUBIC)
    resized = narrow.resize((target[1], target[0]), Image.Resampling.BICUBIC)
    return {"seed": str(seed), "size": size, "target": target, **_told(np.array(resized))}


def _fit(seed: int, size: tuple[int, int], target: tuple[int, int]) -> dict[str, Any]:
    fitted = fit_image(pixels(seed, *size), *target)
    return {"seed": str(seed), "size": size, "target": target, **_told(fitted)}


def _turn(orientation: int) -> dict[str, Any]:
    stored = Image.fromarray(pixels(7, 2, 3))
    picture = Upright("the picture", stored, orientation)
    turned = picture.rows(0, picture.shape[0])
    return {"seed": "7", "size": [2, 3], "orientation": orientation, **_told(turned)}


def _told(values: NDArray[np.uint8]) -> dict[str, Any]:
    content = np.ascontiguousarray(values).tobytes()
    told = {"shape": list(values.shape), "sha256": hashlib.sha256(content).hexdigest()}
    return {**told, "bytes": content.hex()} if len(content) <= WHOLE_BYTES else told


def _tables() -> Iterator[dict[str, Any]]:
    for space in SPACES:
        light = _light_table(space).astype("<u2")
        yield {"table": "light", "space": space.name, "sha256": _sha256(light)}
    yield {"table": "value", "space": "sRGB", "sha256": _sha256(_value_table())}


def _sha256(values: NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def _colours() -> Iterator[dict[str, Any]]:
    triples = [*TRIPLES, *pixels(42, 1, 20)[0].tolist()]
    for space in SPACES:
        converted = convert_to_srgb(np.array([triples], np.uint8), space)[0].tolist()
        for before, after in zip(triples, converted, strict=True):
            yield {"space": space.name, "rgb": before, "srgb": after}


def _grid(
    first: str, second: str, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> Iterator[dict[str, Any]]:
    """Give all 65536 results as a hash, rows for the first value, and some of them."""
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1)
    results = function(pairs.astype(np.uint8))
    yield {"of": f"all, {first} by {second}", "sha256": _sha256(results)}
    for a, b in ((0, 0), (255, 255), (200, 51), (51, 200), (1, 254), (128, 127), (77, 3), (0, 128)):
        yield {first: a, second: b, "result": int(results[a, b])}


def _on_white(pairs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = np.concatenate([pairs[..., :1].repeat(3, axis=2), pairs[..., 1:]], axis=2)
    return np.ascontiguousarray(read_image(Image.fromarray(picture))[..., 0])


def _from_inks(pairs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    inks = np.concatenate([pairs[..., :1].repeat(3, axis=2), pairs[..., 1:]], axis=2)
    return np.ascontiguousarray(read_image(Image.fromarray(inks, "CMYK"))[..., 0])


def _grey(value: int) -> dict[str, int]:
    image = Image.fromarray(np.array([[value]], np.uint16))
    return {"grey": value, "result": int(read_image(image)[0, 0, 0])}


def _times(
    name: str, clock: str, ticks: tuple[int, ...], fps: float, frames: int
) -> dict[str, Any]:
    """Choose frames of a source whose last one is shown as long as the one before it."""
    tick, last = Fraction(clock), max(0, ticks[-1] - ticks[-2]) if len(ticks) > 1 else 0
    shots = (
        Shot(
            time=tick * time,
            duration=tick * last,
            fit=lambda height, width, place=place: np.full((height, width, 3), place, np.uint8),
        )
        for place, time in enumerate(ticks)
    )
    try:
        chosen = take("source", shots, (frames, 1, 1), exact_rate(fps)).frames[:, 0, 0, 0].tolist()
    except InputError:
        chosen = None
    return {
        "source": name,
        "clock": clock,
        "ticks": list(ticks),
        "last": last,
        "fps": fps,
        "frames": frames,
        "chosen": chosen,
    }
