"""Colours of known spaces become those of sRGB; all others keep their values."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import (
    ADOBE,
    ADOBE_CURVE,
    P3,
    SRGB_CURVE,
    chunk,
    dress_jpeg,
    dress_png,
    dress_webp,
    noise,
    profile,
    saved,
    segment,
)
from PIL import Image

from mvsdk.image import read_image

SRGB_IN_P3 = {  # what the primaries of sRGB are in Display P3, by CSS Color 4
    (234, 51, 35): (255, 0, 0),
    (117, 251, 76): (0, 255, 0),
    (0, 0, 245): (0, 0, 255),
    (255, 255, 84): (255, 255, 0),
    (255, 255, 255): (255, 255, 255),
    (0, 0, 0): (0, 0, 0),
    (128, 128, 128): (128, 128, 128),
}


PINNED = ((P3, SRGB_CURVE, 3362545704), (ADOBE, ADOBE_CURVE, 1785709510))


def _pixels() -> np.ndarray:
    return np.array([list(SRGB_IN_P3)], np.uint8)


def _read(content: bytes, folder: Path) -> np.ndarray:
    path = folder / "x"
    path.write_bytes(content)
    return read_image(path)


def _png(content: bytes, said: bytes) -> bytes:
    return dress_png(content, chunk(b"iCCP", b"a name\0\0" + zlib.compress(said)))


def test_display_p3_becomes_srgb(tmp_path: Path) -> None:
    expected = np.array([list(SRGB_IN_P3.values())])
    read = _read(_png(saved(_pixels(), "PNG"), profile()), tmp_path)
    assert np.abs(read.astype(int) - expected).max() <= 3
    assert (read[0, 4:] == expected[0, 4:]).all()  # white, black and grey stay as they are


def test_every_grey_of_display_p3_stays(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    assert np.array_equal(_read(_png(saved(grey, "PNG"), profile()), tmp_path), grey)


def test_colours_are_those_of_exact_arithmetic(tmp_path: Path) -> None:
    """Against the definition, in floating point: XYZ by the primaries and white of D65."""

    def to_xyz(*primaries: tuple[float, float]) -> np.ndarray:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    srgb = to_xyz((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
    p3 = to_xyz((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
    values = noise(64, 64) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = np.clip(light @ np.linalg.solve(srgb, p3).T, 0, 1)
    exact = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    read = _read(_png(saved(noise(64, 64), "PNG"), profile()), tmp_path)
    assert np.abs(read - exact).max() < 0.6


def test_the_rule_is_pinned_for_other_runtimes(tmp_path: Path) -> None:
    for colorants, curve, checksum in PINNED:
        read = _read(_png(saved(noise(64, 64), "PNG"), profile(colorants, curve)), tmp_path)
        assert zlib.crc32(read.tobytes()) == checksum


def test_adobe_rgb_becomes_srgb(tmp_path: Path) -> None:
    colours = np.array([[[219, 0, 0], [255, 255, 255], [128, 128, 128], [0, 0, 0]]], np.uint8)
    read = _read(_png(saved(colours, "PNG"), profile(ADOBE, ADOBE_CURVE)), tmp_path)
    expected = [[255, 0, 0], [255, 255, 255], [128, 128, 128], [0, 0, 0]]
    assert np.abs(read[0].astype(int) - expected).max() <= 2


def test_a_profile_is_found_in_every_format(tmp_path: Path) -> None:
    said = profile()
    turned = _read(_png(saved(noise(), "PNG"), said), tmp_path)
    assert not np.array_equal(turned, noise())
    webp = saved(noise(), "WEBP", lossless=True)
    content = dress_webp(webp, (b"ICCP", said), flags=0x20, size=(32, 24))
    assert np.array_equal(_read(content, tmp_path), turned)
    saved_by_pillow = saved(noise(), "TIFF", icc_profile=said)
    assert np.array_equal(_read(saved_by_pillow, tmp_path), turned)
    cicp = dress_png(saved(noise(), "PNG"), chunk(b"cICP", b"\x0c\x0d\0\1"))
    assert np.array_equal(_read(cicp, tmp_path), turned)
    image = Image.fromarray(noise())
    image.info["icc_profile"] = said
    assert np.array_equal(read_image(image), turned)
    red = np.full((16, 16, 3), (234, 51, 35), np.uint8)
    jpeg = dress_jpeg(saved(red, "JPEG", quality=95), segment(0xE2, b"ICC_PROFILE\0\1\1" + said))
    assert np.abs(_read(jpeg, tmp_path).astype(int) - (255, 0, 0)).max() <= 12


def test_curves_of_display_p3_may_be_tables(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 1024)
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    points = np.rint(65535 * light).astype(">u2")
    table = b"curv\0\0\0\0" + struct.pack(">I", 1024) + points.tobytes()
    turned = _read(_png(saved(noise(), "PNG"), profile()), tmp_path)
    assert np.array_equal(
        _read(_png(saved(noise(), "PNG"), profile(curve=table)), tmp_path), turned
    )


SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
OTHERS = {
    "sRGB": profile(SRGB),
    "other primaries": profile(((0.5, 0.2, 0.0), *P3[1:])),
    "another curve": profile(curve=ADOBE_CURVE),
    "a curve of no points": profile(curve=b"curv" + bytes(8)),
    "a curve of too many": profile(curve=b"curv\0\0\0\0\xff\xff\xff\xff"),
    "a curve that is none": profile(curve=b"mft2" + bytes(8)),
    "a curve of another kind": profile(curve=SRGB_CURVE[:8] + b"\0\x09" + SRGB_CURVE[10:]),
    "inks": profile().replace(b"RGB XYZ ", b"CMYKXYZ "),
    "half of it": profile()[:180],
    "the header": profile()[:128],
    "too many tags": profile()[:128] + b"\xff\xff\xff\xff" + profile()[132:],
    "places beyond it": profile()[:136] + b"\x7f\xff\xff\xff" + profile()[140:],
    "nothing": b"",
    "a large one": profile().ljust(1 << 20, b"\0"),
}


@pytest.mark.parametrize("said", OTHERS)
def test_values_of_any_other_profile_stay(tmp_path: Path, said: str) -> None:
    assert np.array_equal(_read(_png(saved(noise(), "PNG"), OTHERS[said]), tmp_path), noise())
    webp = saved(noise(), "WEBP", lossless=True)
    content = dress_webp(webp, (b"ICCP", OTHERS[said]), flags=0x20, size=(32, 24))
    assert np.array_equal(_read(content, tmp_path), noise())


def test_other_colours_that_are_said_stay(tmp_path: Path) -> None:
    for body in (b"\x09\x10\0\1", b"\1\x0d\0\1", b"\x0c\x0d\0", b""):
        content = dress_png(saved(noise(), "PNG"), chunk(b"cICP", body))
        assert np.array_equal(_read(content, tmp_path), noise())
    said = dress_png(_png(saved(noise(), "PNG"), profile()), chunk(b"cICP", b"\1\x0d\0\1"))
    assert np.array_equal(_read(said, tmp_path), noise())  # which goes before a profile
    gamma = dress_png(saved(noise(), "PNG"), chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert np.array_equal(_read(gamma, tmp_path), noise())


def test_a_profile_of_light_says_nothing_about_inks(tmp_path: Path) -> None:
    plain = saved(Image.fromarray(noise()).convert("CMYK"), "TIFF")
    dressed = saved(Image.fromarray(noise()).convert("CMYK"), "TIFF", icc_profile=profile())
    assert np.array_equal(_read(dressed, tmp_path), _read(plain, tmp_path))
