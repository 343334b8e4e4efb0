"""Pictures of every odd kind are read as they are seen, and hostile ones are one line."""

from __future__ import annotations

import errno
import io
import os
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvsdk import InputError, PictureNotFoundError
from mvsdk.image import FORMATS, MAX_FILE_BYTES, SUFFIXES, fit_image, load_image, read_image

LOSSLESS = ["PNG", "WEBP", "BMP", "TIFF"]


def _picture(height: int = 6, width: int = 9) -> np.ndarray:
    """Return RGB in which every pixel differs from its neighbours."""
    count = height * width * 3
    return (np.arange(count) * 7 % 256).astype(np.uint8).reshape(height, width, 3)


def _save(path: Path, image: Image.Image, kind: str, **options: Any) -> Path:
    if kind == "WEBP":
        options = {"lossless": True, "exact": True, **options}
    image.save(path, format=kind, **options)
    return path


def _refused(source: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_image(source)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    return message


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOSSLESS)
def test_pixels_of_a_file_are_kept(tmp_path: Path, kind: str) -> None:
    path = _save(tmp_path / "x", Image.fromarray(_picture()), kind)
    assert np.array_equal(read_image(path), _picture())
    assert np.array_equal(read_image(str(path)), _picture())


def test_jpeg_is_read(tmp_path: Path) -> None:
    flat = np.full((16, 24, 3), (200, 30, 60), np.uint8)
    path = _save(tmp_path / "x.jpg", Image.fromarray(flat), "JPEG", quality=95)
    assert np.abs(read_image(path).astype(int) - flat).max() <= 3


def test_images_of_pillow_and_arrays_are_taken(tmp_path: Path) -> None:
    image = Image.fromarray(_picture())
    assert np.array_equal(read_image(image), _picture())
    assert np.array_equal(read_image(_picture()), _picture())
    assert np.array_equal(read_image(_picture()[::-1]), _picture()[::-1])
    with Image.open(_save(tmp_path / "x", image, "PNG")) as lazy:
        assert np.array_equal(read_image(lazy), _picture())


def test_images_of_a_caller_stay_as_they_were() -> None:
    image = Image.fromarray(_picture())
    image.getexif()[0x0112] = 6
    read_image(image)
    assert image.size == (9, 6)
    assert image.getexif()[0x0112] == 6


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.jpg", Image.fromarray(_picture()), "PNG")
    assert np.array_equal(read_image(path), _picture())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_becomes_8_and_is_not_clipped(tmp_path: Path, kind: str) -> None:
    grey = np.array([[0, 128, 129, 257], [32768, 65535, 65407, 514]], np.uint16)
    read = read_image(_save(tmp_path / "x", Image.fromarray(grey), kind))
    expected = np.array([[0, 0, 1, 1], [128, 255, 255, 2]], np.uint8)
    assert np.array_equal(read, expected[..., None].repeat(3, axis=2))


@pytest.mark.parametrize(("mode", "order"), [("I;16", "<"), ("I;16B", ">"), ("I", "=")])
def test_grey_of_16_bits_is_read_in_any_order_of_bytes(mode: str, order: str) -> None:
    values = np.array([0, 65535, 513], f"{order}{'i4' if mode == 'I' else 'u2'}")
    image = Image.frombytes(mode, (3, 1), values.tobytes())
    assert read_image(image)[0, :, 0].tolist() == [0, 255, 2]


def test_transparent_grey_of_16_bits_stands_on_white(tmp_path: Path) -> None:
    grey = np.array([[0, 0, 257], [65535, 0, 514]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png", transparency=0)
    found = read_image(tmp_path / "grey.png")[..., 0]
    assert found.tolist() == [[255, 255, 1], [255, 255, 2]]


def test_grey_that_is_wider_than_16_bits_is_refused(tmp_path: Path) -> None:
    for value in (70_000, -1):
        image = Image.fromarray(np.full((2, 2), value, np.int32))
        message = _refused(_save(tmp_path / "x", image, "TIFF"))
        assert "holds grey beyond 16 bits; allowed: 8 or 16 bits; convert it" in message


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((2, 2), 0.5, np.float32))
    assert "floating-point pixels" in _refused(_save(tmp_path / "x", image, "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), 255)
    read = read_image(_save(tmp_path / "x", image, "PNG"))
    assert read.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_inks_become_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    read = read_image(_save(tmp_path / "x.jpg", image, "JPEG", quality=95))
    assert np.abs(read.astype(int) - (255, 0, 0)).max() <= 3


def test_luma_and_chroma_become_rgb(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (250, 10, 10)).convert("YCbCr")
    read = read_image(_save(tmp_path / "x.tif", image, "TIFF"))
    assert np.abs(read.astype(int) - (250, 10, 10)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_stands_on_white(tmp_path: Path, kind: str) -> None:
    pixels = np.array([[[200, 0, 0, 0], [200, 0, 0, 255], [200, 0, 0, 51]]], np.uint8)
    read = read_image(_save(tmp_path / "x", Image.fromarray(pixels), kind))
    assert read.tolist() == [[[255, 255, 255], [200, 0, 0], [244, 204, 204]]]


def test_grey_with_transparency_stands_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[100, 0], [100, 255]]], np.uint8)
    read = read_image(_save(tmp_path / "x", Image.fromarray(pixels), "PNG"))
    assert read[0, :, 0].tolist() == [255, 100]


def test_a_palette_with_transparent_entries_stands_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0])
    image.putdata([0, 1, 2])
    path = _save(tmp_path / "x", image, "PNG", transparency=bytes([0, 255, 51]))
    assert read_image(path).tolist() == [[[255, 255, 255], [200, 0, 0], [204, 244, 204]]]
    path = _save(tmp_path / "x", image, "GIF", transparency=1)
    assert read_image(path).tolist() == [[[10, 20, 30], [255, 255, 255], [0, 200, 0]]]
    path = _save(tmp_path / "x", image, "PNG")
    assert read_image(path).tolist() == [[[10, 20, 30], [200, 0, 0], [0, 200, 0]]]


def test_a_colour_that_means_transparent_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    path = _save(tmp_path / "x", image, "PNG", transparency=(9, 8, 7))
    assert read_image(path).tolist() == [[[255, 255, 255], [1, 2, 3]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path, kind: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *others = [Image.new("RGB", (4, 4), colour) for colour in colours]
    path = _save(tmp_path / "x", first, kind, save_all=True, append_images=others)
    assert np.array_equal(read_image(path), np.asarray(first))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_of_a_turned_camera_stand_upright(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # a light quarter at the top left
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_image(_save(tmp_path / "x", stored, kind, exif=exif))
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() <= 3


# --- what is refused -----------------------------------------------------------------------------


def test_places_without_a_picture_are_named(tmp_path: Path) -> None:
    assert "cannot be read: no such file" in _refused(tmp_path / "nothing.png")
    assert "is not a regular file; give the path of a PNG, JPEG" in _refused(tmp_path)
    assert "cannot be read" in _refused("a\0b.png")
    assert "name too long" in _refused("x" * 300)
    (tmp_path / "empty.png").write_bytes(b"")
    assert "'" in _refused(tmp_path / "empty.png")


def test_a_picture_that_is_not_there_is_a_file_not_found_too(tmp_path: Path) -> None:
    path = tmp_path / "nothing.png"
    for source in (path, str(path)):
        with pytest.raises(FileNotFoundError) as caught:
            read_image(source)
        found = caught.value
        assert isinstance(found, PictureNotFoundError)
        assert isinstance(found, InputError)
        assert (found.errno, found.filename) == (errno.ENOENT, str(path))
        assert str(found).startswith("picture '")
    with pytest.raises(InputError) as other:
        read_image(tmp_path)
    assert not isinstance(other.value, FileNotFoundError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_that_nobody_writes_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "is not a regular file" in _refused(tmp_path / "pipe.png")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
OTHERS = {
    "eps": EPS,
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "ppm": b"P6 1 1 255\nabc",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "text": b"a picture of a harbour\n",
    "tga": bytes([0, 0, 2, *[0] * 9, 1, 0, 1, 0, 24, 0, 1, 2, 3]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_refused_whatever_they_are_called(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(OTHERS[kind])
    assert _refused(path).endswith(
        "x.png' is no PNG, JPEG, WebP, GIF, BMP or TIFF file; convert it to one"
    )


def test_formats_with_programs_in_them_are_not_among_those_read(tmp_path: Path) -> None:
    assert {"EPS", "WMF", "FPX", "PDF", "PSD"} & set(FORMATS) == set()
    image = Image.fromarray(_picture())
    for kind in ("ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000"):
        with io.BytesIO() as file:
            try:
                image.save(file, format=kind)
            except (OSError, KeyError):  # a build without this encoder
                continue
            (tmp_path / "x").write_bytes(file.getvalue())
        assert "is no PNG, JPEG" in _refused(tmp_path / "x")


def _files(folder: Path) -> dict[str, bytes]:
    """Return a valid file of every format, with detail that does not compress."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image = Image.fromarray(noise)
    return {kind: _save(folder / "x", image, kind).read_bytes() for kind in FORMATS}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    for kind, content in _files(tmp_path).items():
        path = tmp_path / f"cut.{kind}"
        path.write_bytes(content[: int(share * len(content))])
        message = _refused(path)
        assert "is damaged: " in message or "is no PNG, JPEG" in message, kind


def test_flipped_bytes_give_a_picture_or_one_line(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "x"
    for content in _files(tmp_path).values():
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(chance.randint(1, 8)):
                place = chance.choice([chance.randrange(64), chance.randrange(len(content))])
                damaged[place] = chance.randrange(256)
            path.write_bytes(damaged)
            try:
                assert read_image(path).dtype == np.uint8
            except InputError as exc:
                assert str(exc).isprintable()  # noqa: PT017 - either outcome is right


def _png(width: int, height: int) -> bytes:
    """Return a PNG of one grey bit a pixel, whose pixels are missing."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    "size", [(8193, 8192), (10_000, 9_000), (60_000, 60_000), (2**31 - 1, 1), (1, 65_536)]
)
def test_pictures_that_would_fill_the_memory_are_refused_by_their_header(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(*size))
    start = time.perf_counter()
    assert "pixels; allowed: at most 67108864 in all, and 65535 a side" in _refused(path)
    assert time.perf_counter() - start < 1


def test_a_real_bomb_is_not_decoded(tmp_path: Path) -> None:
    """A file of a few kilobytes that would be 900 million pixels."""
    row = b"\0" * (30_000 // 8 + 1)
    path = tmp_path / "bomb.png"
    content = _png(30_000, 30_000)
    pixels = zlib.compress(row * 3_000)
    path.write_bytes(content.replace(zlib.compress(b""), pixels))
    assert "pixels; allowed: at most" in _refused(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert f"has more than {MAX_FILE_BYTES} bytes; make it smaller" in _refused(path)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "grey", "alpha", "batch", "none"],
)
def test_arrays_that_are_no_picture_are_refused(image: np.ndarray) -> None:
    assert "allowed: RGB as uint8 (H, W, 3)" in _refused(image)


def test_other_things_are_refused() -> None:
    assert "of the type NoneType; allowed: a path, an image of Pillow" in _refused(None)
    assert "of the type list" in _refused([[0]])


def test_the_named_suffixes_are_those_of_the_formats() -> None:
    registered = {suffix: kind for suffix, kind in Image.registered_extensions().items()}
    assert {registered[suffix] for suffix in SUFFIXES} == set(FORMATS)


# --- fitting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        ((20, 60), (slice(None), slice(10, 50))),  # too wide: both sides go
        ((60, 40), (slice(20, 40), slice(None))),  # too high: top and bottom go
        ((20, 40), (slice(None), slice(None))),
    ],
)
def test_the_middle_is_cut_out_and_nothing_is_stretched(
    size: tuple[int, int], kept: tuple[slice, slice]
) -> None:
    image = _picture(*size)
    assert np.array_equal(fit_image(image, 20, 40), image[kept])


def test_a_square_stays_a_square_when_it_is_resized() -> None:
    image = np.zeros((100, 400, 3), np.uint8)
    image[28:68, 180:220] = 255
    small = fit_image(image, 25, 50)
    light = small[..., 0] > 127
    assert (light.any(axis=1).sum(), light.any(axis=0).sum()) == (10, 10)


def test_fine_patterns_fade_when_a_picture_gets_smaller() -> None:
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    small = fit_image(board[..., None].repeat(3, axis=2), 16, 16)
    assert np.abs(small.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (3, 2)])
def test_tiny_pictures_are_enlarged(size: tuple[int, int]) -> None:
    assert (fit_image(np.full((*size, 3), 77, np.uint8), 256, 512) == 77).all()


def test_odd_sizes_give_exactly_the_size_that_is_asked_for() -> None:
    for height, width in ((101, 37), (37, 101), (999, 1000), (255, 513)):
        assert fit_image(_picture(height, width), 32, 64).shape == (32, 64, 3)


def test_loading_reads_and_fits(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.png", Image.fromarray(_picture(6, 9)), "PNG")
    assert np.array_equal(load_image(path, 6, 3), _picture(6, 9)[:, 3:6])
