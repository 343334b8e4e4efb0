"""The golden file of pictures, by the runtime and by docs/pictures.md in plain numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import plain_picture as plain
import pytest
from PIL import Image

from mvsdk._shots import Shot, exact_rate, take
from mvsdk.errors import InputError
from mvsdk.image import fit_image, read_image
from mvsdk.image._colours import SPACES, convert_to_srgb
from mvsdk.image._fitting import find_box
from mvsdk.image._upright import Upright

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden/picture.json").read_bytes())
SPACE = {space.name: space for space in SPACES}
PLAIN_SPACE = {"Display P3": "display_p3", "Adobe RGB (1998)": "adobe_rgb"}


def _pillow_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    narrow = Image.fromarray(image).resize((width, len(image)), Image.Resampling.BICUBIC)
    return np.array(narrow.resize((width, height), Image.Resampling.BICUBIC))


def _check(case: dict[str, Any], result: np.ndarray) -> None:
    assert list(result.shape) == case["shape"]
    assert plain.sha256(result) == case["sha256"]
    if "bytes" in case:
        assert result.tobytes().hex() == case["bytes"]


def test_the_generator_is_the_one_that_is_written_down() -> None:
    (said,) = GOLDEN["generator"]
    assert (said["multiplier"], said["increment"]) == ("6364136223846793005", "1442695040888963407")
    assert plain.pixels(0, 1, 1)[0, 0, 0] == 1442695040888963407 >> 56


@pytest.mark.parametrize("way", [find_box, lambda shape, target: plain.box(*shape, *target)])
def test_boxes(way: Callable[..., Any]) -> None:
    assert len(GOLDEN["boxes"]) == 60
    for case in GOLDEN["boxes"]:
        expected = (case["top"], case["left"], case["height"], case["width"])
        assert tuple(way(tuple(case["picture"]), tuple(case["clip"]))) == expected


@pytest.mark.parametrize("way", [_pillow_resize, plain.resize])
@pytest.mark.parametrize("case", GOLDEN["resizes"], ids=lambda case: case["seed"])
def test_resizes(case: dict[str, Any], way: Callable[..., np.ndarray]) -> None:
    _check(case, way(plain.pixels(int(case["seed"]), *case["size"]), *case["target"]))


@pytest.mark.parametrize("way", [fit_image, plain.fit])
@pytest.mark.parametrize("case", GOLDEN["fits"], ids=lambda case: case["seed"])
def test_fits(case: dict[str, Any], way: Callable[..., np.ndarray]) -> None:
    _check(case, way(plain.pixels(int(case["seed"]), *case["size"]), *case["target"]))


def test_turns() -> None:
    for case in GOLDEN["turns"]:
        stored = plain.pixels(int(case["seed"]), *case["size"])
        picture = Upright("the picture", Image.fromarray(stored), case["orientation"])
        _check(case, picture.rows(0, picture.shape[0]))
        _check(case, plain.upright(stored, case["orientation"]))


def test_tables_of_light_and_values() -> None:
    for case in GOLDEN["tables"]:
        if case["table"] == "light":
            space = PLAIN_SPACE[case["space"]]
            made = np.array([plain.light(space, value) for value in range(256)], "<u2")
        else:
            made = np.array([plain.byte(amount) for amount in range(65536)], np.uint8)
        assert plain.sha256(made) == case["sha256"]


def test_colours() -> None:
    for case in GOLDEN["colours"]:
        pixel = np.array([[case["rgb"]]], np.uint8)
        assert convert_to_srgb(pixel, SPACE[case["space"]])[0, 0].tolist() == case["srgb"]
        assert plain.to_srgb(PLAIN_SPACE[case["space"]], case["rgb"]) == case["srgb"]


@pytest.mark.parametrize(("section", "way"), [("white", plain.on_white), ("inks", plain.from_inks)])
def test_transparency_and_inks(section: str, way: Callable[[int, int], int]) -> None:
    whole, *cases = GOLDEN[section]
    grid = np.array([[way(a, b) for b in range(256)] for a in range(256)], np.uint8)
    assert plain.sha256(grid) == whole["sha256"]
    for case in cases:
        first, second, result = case.values()
        assert way(first, second) == result


def test_transparency_and_inks_of_the_runtime() -> None:
    for case in GOLDEN["white"][1:]:
        picture = Image.new("RGBA", (1, 1), (*[case["value"]] * 3, case["alpha"]))
        assert read_image(picture)[0, 0].tolist() == [case["result"]] * 3
    for case in GOLDEN["inks"][1:]:
        picture = Image.new("CMYK", (1, 1), (*[case["ink"]] * 3, case["black"]))
        assert read_image(picture)[0, 0].tolist() == [case["result"]] * 3


def test_grey_of_16_bits() -> None:
    for case in GOLDEN["grey_16"]:
        image = Image.fromarray(np.array([[case["grey"]]], np.uint16))
        assert read_image(image)[0, 0].tolist() == [case["result"]] * 3
        assert (case["grey"] + 128) // 257 == case["result"]


def _places(case: dict[str, Any]) -> list[int] | None:
    """Choose as the runtime does."""
    tick = Fraction(case["clock"])
    shots = [
        Shot(tick * x, tick * case["last"], lambda h, w, n=n: np.full((h, w, 3), n, np.uint8))
        for n, x in enumerate(case["ticks"])
    ]
    try:
        clip = take("source", shots, (case["frames"], 1, 1), exact_rate(case["fps"])).frames
    except InputError:
        return None
    return clip[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("way", [_places, plain.places])
def test_times(way: Callable[[dict[str, Any]], list[int] | None]) -> None:
    for case in GOLDEN["times"]:
        assert way(case) == case["chosen"], case


def _side(chance: random.Random) -> int:
    return chance.choice([chance.randint(1, 8), chance.randint(1, 160), 1 << chance.randint(0, 7)])


def test_random_sizes_are_what_the_text_says() -> None:
    chance, noise = random.Random(20), np.random.default_rng(20)
    for _ in range(150):
        rows, columns, height, width = (_side(chance) for _ in range(4))
        image = noise.integers(0, 256, (rows, columns, 3), np.uint8)
        if chance.random() < 0.3:
            image = (image > 127).astype(np.uint8) * 255  # beyond both ends between hard edges
        expected = plain.fit(image, height, width)
        assert np.array_equal(fit_image(image, height, width), expected), (
            image.shape,
            height,
            width,
        )


def test_weights_add_up_and_reach_no_further_than_the_picture() -> None:
    for before, after in ((1, 9), (9, 1), (7, 7), (1000, 3), (3, 1000), (65535, 2)):
        for first, shares in plain.weights(before, after):
            assert 0 <= first < first + len(shares) <= before
            assert abs(sum(shares) - (1 << plain.BITS)) <= len(shares)
            assert 255 * sum(map(abs, shares)) + (1 << 21) < 1 << 31
