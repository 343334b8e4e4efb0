"""Pictures that are made to take time or memory do not get it, and others do not wait for them."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import PNG_MARK, chunk, dress_png, dress_webp, exif, noise, profile, saved, tiff
from PIL import Image

from mvsdk import InputError
from mvsdk.image import _fitting, fit_image, load_image, read_image

SOON_S = 20.0
"""Processor seconds; a loaded machine takes some five for what is no fault."""
"""Of the processor: other tests may run beside these."""


def _read(content: bytes, folder: Path) -> np.ndarray:
    return read_image(_written(folder, content))


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "x"
    path.write_bytes(content)
    return path


def _refused(content: bytes, folder: Path) -> str:
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        _read(content, folder)
    assert time.process_time() - start < SOON_S
    return str(caught.value)


# --- time ----------------------------------------------------------------------------------------


def _many_scans(scans: int, side: int = 64) -> bytes:
    """Return a progressive JPEG whose last scan is there many times over."""
    content = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    tables = content.rindex(b"\xff\xc4", 0, content.rindex(b"\xff\xda"))
    made = content.count(b"\xff\xda")
    return content[:-2] + content[tables:-2] * (scans - made) + content[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused_by_their_number(tmp_path: Path) -> None:
    message = _refused(_many_scans(2000, 2048), tmp_path)
    assert message.endswith(
        "is a JPEG of 2048 x 2048 pixels in 2000 scans; allowed: at most 100; save it again"
    )
    assert "in 101 scans; allowed: at most 100" in _refused(_many_scans(101), tmp_path)
    assert (_read(_many_scans(100), tmp_path) == 128).all()


def test_a_large_jpeg_may_have_fewer_scans(tmp_path: Path) -> None:
    content = bytearray(_many_scans(60))
    frame = content.index(b"\xff\xc2")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 8192, 8192)
    assert "8192 x 8192 pixels in 60 scans; allowed: at most 32; " in _refused(content, tmp_path)


def test_scans_of_pictures_behind_the_first_do_not_count(tmp_path: Path) -> None:
    content = saved(noise(), "JPEG")
    assert np.array_equal(_read(content + _many_scans(200), tmp_path), _read(content, tmp_path))


class _Slow(Image.Image):
    """An image that takes as long to decode as a test wants."""

    began = threading.Event()
    may_end = threading.Event()

    def load(self) -> Any:
        self.began.set()
        assert self.may_end.wait(60)
        return super().load()


def test_other_pictures_are_read_while_a_slow_one_is_decoded(tmp_path: Path) -> None:
    slow = Image.new("RGB", (2, 2))
    slow.__class__ = _Slow
    reading = threading.Thread(target=read_image, args=(slow,), daemon=True)
    reading.start()
    try:
        assert _Slow.began.wait(30)
        found: list[np.ndarray] = []
        path = tmp_path / "x.png"
        path.write_bytes(saved(noise(), "PNG"))
        other = threading.Thread(target=lambda: found.append(read_image(path)), daemon=True)
        other.start()
        other.join(30)
        assert len(found) == 1
        assert np.array_equal(found[0], noise())
    finally:
        _Slow.may_end.set()
        reading.join(30)


def test_small_parts_without_end_are_refused(tmp_path: Path) -> None:
    jpeg = b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000
    assert "is damaged: more than 65536 segments" in _refused(jpeg, tmp_path)
    png = PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    assert "more than 1048576 chunks" in _refused(png + chunk(b"tEXt", b"") * 1_050_000, tmp_path)
    webp = saved(noise(), "WEBP")
    many = dress_webp(webp, flags=0, size=(32, 24)) + b"abcd\0\0\0\0" * 1_050_000
    many = many[:4] + struct.pack("<I", len(many) - 8) + many[8:]
    assert "more than 1048576 chunks" in _refused(many, tmp_path)
    head = saved(noise(), "GIF")[:13]
    gif = head[:10] + b"\0" + head[11:] + b"!\xfe" + b"\1a" * 1_050_000
    assert "blocks of text" in _refused(gif, tmp_path)


def test_frames_behind_the_first_take_no_time(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(noise(), i, axis=1)) for i in range(3)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        many = {"save_all": True, "append_images": frames[1:] * 100, **options}
        first = _read(saved(frames[0], kind, **options), tmp_path)
        content = saved(frames[0], kind, **many)
        start = time.process_time()
        assert np.array_equal(_read(content, tmp_path), first), kind
        assert time.process_time() - start < SOON_S


def test_packed_pixels_beyond_a_bmp_are_refused(tmp_path: Path) -> None:
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 0, 0, 0, 2, 0)
    packed = b"BM" + struct.pack("<IHHI", 0, 0, 0, 62) + head + b"\0" * 8 + b"\1\0" * 5_000_000
    assert "bytes of packed pixels; allowed for 8 x 8: at most 65664" in _refused(packed, tmp_path)


# --- memory --------------------------------------------------------------------------------------


def test_pixels_that_inflate_to_more_than_the_picture_are_not_inflated(tmp_path: Path) -> None:
    row = b"\0" + bytes(4)
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    content = PNG_MARK + body + chunk(b"IDAT", zlib.compress(row * 4 + bytes(256 << 20), 1))
    start = time.process_time()
    assert not _read(content + chunk(b"IEND", b""), tmp_path).any()
    assert time.process_time() - start < SOON_S


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF", "JPEG"])
def test_every_format_is_refused_by_the_size_in_its_header(tmp_path: Path, kind: str) -> None:
    content = bytearray(saved(noise(24, 32), kind))
    if kind == "GIF":
        content[6:10] = struct.pack("<HH", 65535, 65535)
    elif kind == "WEBP":
        plain = saved(noise(24, 32), kind)
        content = bytearray(dress_webp(plain, flags=0, size=(1 << 20, 1 << 12)))
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", 50_000, -50_000)
    elif kind == "TIFF":
        size = struct.pack("<LHHL", 32, 257, 4, 1)
        content = bytearray(tiff(noise()).replace(size, struct.pack("<LHHL", 70_000, 257, 4, 1)))
    else:
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    assert "pixels; allowed: at most 67108864 in all, and 65535 a side" in _refused(
        bytes(content), tmp_path
    )


def _change(content: bytes, tag: int, kind: int, count: int, field: bytes) -> bytes:
    """Change a tag of a TIFF file that `tiff` made."""
    place = content.rindex(struct.pack("<HH", tag, 3 if tag == 258 else 4))
    return content[:place] + struct.pack("<HHL4s", tag, kind, count, field) + content[place + 12 :]


def test_a_tiff_that_paints_itself_over_and_over_is_refused(tmp_path: Path) -> None:
    content = tiff(np.zeros((64, 64, 3), np.uint8))
    many = _change(content, 273, 4, 2000, struct.pack("<L", 8))
    assert "it has 2000 strips or tiles where 1 are all" in _refused(many, tmp_path)
    far = _change(content, 273, 4, 2**31, struct.pack("<L", 8))
    assert "its tag 273 has 2147483648 values" in _refused(far, tmp_path)
    samples = _change(content, 277, 4, 1, struct.pack("<L", 60_000))
    assert "it has 60000 samples a pixel" in _refused(samples, tmp_path)
    tiles = tiff(
        noise(),
        (322, 4, 1, struct.pack("<L", 40_000)),
        (323, 4, 1, struct.pack("<L", 40_000)),
        (324, 4, 1, struct.pack("<L", 8)),
    )
    assert "it has tiles of 40000 x 40000 pixels" in _refused(tiles, tmp_path)


PEAK = """
import sys
from pathlib import Path
import numpy
from PIL import Image
from mvsdk.image import load_image

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

Image.init()
before = peak()
load_image(sys.argv[1], 256, 512)
print(peak() - before >> 10)
"""
"""Not ru_maxrss, which begins with what the process of the tests has held."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["turned JPEG", "PNG with transparency", "PNG of 16 bits"])
def test_a_large_picture_is_in_memory_once(tmp_path: Path, kind: str) -> None:
    """In the decoder's own form, 4 bytes a pixel at most; the rest goes band by band."""
    side = 5120
    grey = np.arange(side, dtype=np.uint16)[None].repeat(side, axis=0)
    if kind == "turned JPEG":
        exif_of_phone = Image.Exif()
        exif_of_phone[0x0112] = 6
        image = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
        content = saved(image, "JPEG", exif=exif_of_phone)
    elif kind == "PNG of 16 bits":
        content = saved(grey, "PNG", compress_level=1)
    else:
        image = Image.new("RGBA", (side, side), (200, 0, 0, 100))
        content = saved(image, "PNG", compress_level=1)
    path = tmp_path / "x"
    path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
    )
    assert 0.2 * (side * side * 4 >> 20) < int(done.stdout) < 1.5 * (side * side * 4 >> 20)


# --- the same picture ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(90, 70), (40, 200), (200, 40), (31, 33)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_give_the_picture_that_the_whole_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], orientation: int
) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    alpha = Image.fromarray(noise(*size)[..., 0])
    image = Image.fromarray(noise(*size))
    image.putalpha(alpha)
    path = tmp_path / "x.png"
    path.write_bytes(saved(image, "PNG", exif=tags))
    whole, fitted = read_image(path), load_image(path, 32, 48)
    assert np.array_equal(fitted, fit_image(whole, 32, 48))
    monkeypatch.setattr(_fitting, "BAND_PIXELS", 500)
    assert np.array_equal(read_image(path), whole)
    assert np.array_equal(load_image(path, 32, 48), fitted)


def test_pictures_are_resized_as_pillow_does(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(saved(noise(900, 700), "PNG"))
    middle = Image.fromarray(noise(900, 700)[275:625])
    narrow = middle.resize((64, 350), Image.Resampling.BICUBIC)
    expected = narrow.resize((64, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(load_image(path, 32, 64), np.array(expected))


# --- whatever comes ------------------------------------------------------------------------------


def _files() -> dict[str, bytes]:
    """Return a valid file of every format, and of what is different inside of it."""
    image = Image.fromarray(noise())
    frames = {"save_all": True, "append_images": [Image.fromarray(noise()[::-1])]}
    packed = b"\4\1\0\0" * 6 + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 4, 6, 1, 8, 1, 0, 0, 0, 2, 0)
    odd = exif((0x0112, 3, 1, b"\6\0\0\0"), (0x0103, 11, 1, bytes(4)))
    icc = {"icc_profile": profile()}
    return {
        "PNG": dress_png(saved(image, "PNG", **icc), chunk(b"eXIf", odd)),
        "PNG of a palette": saved(image.quantize(16), "PNG", transparency=bytes([0, 99])),
        "PNG with frames": saved(image, "PNG", **frames),
        "JPEG": saved(image, "JPEG", exif=b"Exif\0\0" + odd, **icc),
        "progressive JPEG": saved(image, "JPEG", progressive=True),
        "JPEG of inks": saved(image.convert("CMYK"), "JPEG"),
        "pictures of a phone": saved(image, "MPO", **frames),
        "WEBP": saved(image, "WEBP", exif=b"Exif\0\0" + odd, **icc),
        "WEBP with frames": saved(image, "WEBP", lossless=True, **frames),
        "GIF": saved(image, "GIF", interlace=True, comment=b"a"),
        "GIF with frames": saved(image, "GIF", transparency=3, **frames),
        "BMP": saved(image, "BMP"),
        "BMP of a palette": saved(image.quantize(16), "BMP"),
        "packed BMP": b"BM" + struct.pack("<IHHI", 0, 0, 0, 62) + head + bytes(8) + packed,
        "TIFF": saved(image, "TIFF", **icc),
        "TIFF of strips": tiff(noise(), (0x0112, 3, 1, b"\6\0\0\0")),
        "LZW TIFF": saved(image, "TIFF", compression="tiff_lzw"),
        "deflated TIFF": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF of JPEG": saved(image, "TIFF", compression="jpeg"),
        "TIFF of fax": saved(image.convert("1"), "TIFF", compression="group4"),
        "TIFF of 64 bits": saved(image, "TIFF", big_tiff=True),
    }


def _mutate(content: bytes, chance: random.Random) -> bytes:
    """Change some bytes, cut some out, double some, or write a number where one may be."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        place = chance.choice([chance.randrange(64), chance.randrange(len(damaged))])
        length = chance.choice([1, 2, 4, 40])
        what = chance.randrange(4)
        if what == 0:
            damaged[place : place + length] = chance.randbytes(length)
        elif what == 1:
            del damaged[place : place + length]
        elif what == 2:
            damaged[place:place] = damaged[place : place + length]
        else:
            number = chance.choice([0, 1, 255, 65535, 2**31 - 1, 2**32 - 1])
            damaged[place : place + 4] = struct.pack(chance.choice("<>") + "I", number)
        damaged = damaged or bytearray(b"\0")
    return bytes(damaged)


FILES = _files()


@pytest.mark.parametrize("kind", FILES)
def test_any_file_is_a_picture_or_one_line_in_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    chance = random.Random(kind)
    read_image(_written(tmp_path, FILES[kind]))
    slowest = 0.0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(250):
            path = _written(tmp_path, _mutate(FILES[kind], chance))
            start = time.process_time()
            try:
                assert load_image(path, 8, 8).shape == (8, 8, 3)
            except InputError as exc:
                message = str(exc)
                assert message.isprintable() and len(message) < 300  # noqa: PT018 - or this
            slowest = max(slowest, time.process_time() - start)
    assert [str(x.message) for x in warned] == []
    assert capfd.readouterr() == ("", "")
    assert slowest < SOON_S


def test_what_libraries_print_of_a_damaged_picture_is_not_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        image = Image.fromarray(noise(64, 64))
        picture = image.convert("1") if compression == "group4" else image
        content = bytearray(saved(picture, "TIFF", compression=compression))
        with Image.open(io.BytesIO(content)) as opened:
            (start, *_) = opened.tag_v2[273]  # pyright: ignore[reportAttributeAccessIssue]
        content[start + 10 : start + 60] = bytes(range(200, 250))
        path = _written(tmp_path, bytes(content))
        try:
            read_image(path)
        except InputError as exc:
            assert "is damaged: " in str(exc)  # noqa: PT017 - some go on past it
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kept", [0, 3, 7])
def test_a_png_that_ends_in_its_size_is_cut_off(tmp_path: Path, kept: int) -> None:
    content = saved(noise(4, 6), "PNG")[: len(PNG_MARK) + 8 + kept]
    with pytest.raises(InputError, match="cut off"):
        _read(content, tmp_path)
