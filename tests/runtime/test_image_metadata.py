"""What else a file says does not decide about its pixels, and is not read."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import (
    chunk,
    dress_jpeg,
    dress_png,
    dress_webp,
    exif,
    noise,
    orientation,
    riff,
    saved,
    segment,
    tiff,
)
from PIL import Image

from mvsdk import InputError
from mvsdk.image import read_image

MIB = 1 << 20
BOMB = zlib.compress(bytes(8 * MIB))
FLOAT_TAG = (0x011A, 11, 1, struct.pack("<f", 72.5))
COMPRESSION = (0x0103, 11, 1, struct.pack("<f", 1.5))
ODD_EXIF = {
    "a float": exif(FLOAT_TAG, (0x0112, 3, 1, b"\1\0\0\0")),
    "a float for a whole number": exif(COMPRESSION, (0x0112, 3, 1, b"\1\0\0\0")),
    "a float for the orientation": exif((0x0112, 11, 1, struct.pack("<f", 6.0))),
    "a text for the orientation": exif((0x0112, 2, 4, b"6\0\0\0")),
    "many orientations": exif((0x0112, 3, 2, struct.pack("<HH", 6, 6))),
    "an orientation of 0": exif(orientation(0)),
    "an orientation of 9": exif(orientation(9)),
    "a count beyond the file": exif((0x010F, 2, 2**32 - 1, b"\0\0\0\1")),
    "a type that is none": exif((0x010F, 99, 1, b"abcd")),
    "a directory beyond the file": b"II*\0\xff\xff\xff\x7f",
    "fewer tags than counted": exif()[:8] + struct.pack("<H", 40_000),
    "another header": b"mm\0*" + bytes(20),
    "a resolution by nothing": exif((0x011A, 5, 1, struct.pack("<L", 26)), rest=bytes(8)),
    "nothing": b"",
}
CLEAN = {
    "JPEG": saved(noise(), "JPEG"),
    "PNG": saved(noise(), "PNG"),
    "WEBP": saved(noise(), "WEBP", lossless=True),
    "GIF": saved(noise(), "GIF"),
    "TIFF": tiff(noise()),
}


def _read(content: bytes, folder: Path) -> np.ndarray:
    path = folder / "x"
    path.write_bytes(content)
    return read_image(path)


def _same(content: bytes, kind: str, folder: Path) -> bool:
    return np.array_equal(_read(content, folder), _read(CLEAN[kind], folder))


@pytest.mark.parametrize("said", ODD_EXIF)
def test_odd_exif_does_not_refuse_a_picture(tmp_path: Path, said: str) -> None:
    body = ODD_EXIF[said]
    jpeg = dress_jpeg(CLEAN["JPEG"], segment(0xE1, b"Exif\0\0" + body))
    assert _same(jpeg, "JPEG", tmp_path)
    before = dress_png(CLEAN["PNG"], chunk(b"eXIf", body))
    assert _same(before, "PNG", tmp_path)
    assert _same(dress_png(CLEAN["PNG"], after=chunk(b"eXIf", body)), "PNG", tmp_path)
    webp = dress_webp(CLEAN["WEBP"], (b"EXIF", body), flags=8, size=(32, 24))
    assert _same(webp, "WEBP", tmp_path)


def _mpf(entries: int, *, format_of: int = 0) -> bytes:
    """Return the index of several pictures in one file."""
    table = b"".join(struct.pack("<LLLHH", format_of << 24, 9, 0, 0, 0) for _ in range(entries))
    count = (0xB001, 4, 1, struct.pack("<L", entries))
    return b"MPF\0" + exif(count, (0xB002, 7, len(table), struct.pack("<L", 38)), rest=table)


JPEG_SEGMENTS = {
    "a profile in many pieces": [
        segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 40]) + bytes(60_000)) for i in range(1, 41)
    ],
    "pieces of a profile that lie": [segment(0xE2, b"ICC_PROFILE\0\7\2abc")] * 3,
    "a piece without a number": [segment(0xE2, b"ICC_PROFILE\0")],
    "a long text": [segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"a" * 60_000)] * 40,
    "other pictures": [segment(0xE2, _mpf(2))],
    "other pictures that are none": [segment(0xE2, _mpf(2, format_of=3))],
    "an index without entries": [segment(0xE2, b"MPF\0" + exif())],
    "an index that is cut off": [segment(0xE2, b"MPF\0II*\0")],
    "blocks of Photoshop": [segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\xff")],
    "a short header": [segment(0xE0, b"JFIF\0")],
    "a short mark of Adobe": [segment(0xEE, b"Adobe")],
    "comments": [segment(0xFE, b"a" * 65_000)] * 20,
    "fill bytes": [b"\xff" * 50],
    "two of EXIF": [
        segment(0xE1, b"Exif\0\0" + exif(orientation(1))),
        segment(0xE1, b"Exif\0\0" + exif(orientation(6))),
    ],
    "a preview": [segment(0xE1, b"Exif\0\0" + exif(rest=CLEAN["JPEG"]))],
}


@pytest.mark.parametrize("said", JPEG_SEGMENTS)
def test_segments_around_a_jpeg_do_not_matter(tmp_path: Path, said: str) -> None:
    assert _same(dress_jpeg(CLEAN["JPEG"], *JPEG_SEGMENTS[said]), "JPEG", tmp_path)


def test_what_follows_a_picture_does_not_matter(tmp_path: Path) -> None:
    for kind in CLEAN:
        for after in (b"\0" * 100, b"\xff" * 100, CLEAN["JPEG"], CLEAN["PNG"]):
            assert _same(CLEAN[kind] + after, kind, tmp_path), kind


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_marks_that_tell_the_colours_of_a_jpeg_are_kept(tmp_path: Path, mode: str) -> None:
    content = saved(Image.fromarray(noise()).convert(mode), "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.array(image.convert("RGB"))
    assert np.array_equal(_read(content, tmp_path), expected)
    plain = saved(noise(), "JPEG", keep_rgb=True)  # RGB, which Adobe's mark says
    with Image.open(io.BytesIO(plain)) as image:
        assert np.array_equal(_read(plain, tmp_path), np.array(image))


PNG_CHUNKS = {
    "a long text": chunk(b"tEXt", b"prompt\0" + b"a" * 2 * MIB),
    "a packed text": chunk(b"zTXt", b"workflow\0\0" + BOMB),
    "a packed text in Unicode": chunk(b"iTXt", b"workflow\0\1\0\0\0" + BOMB),
    "a text that is not packed": chunk(b"zTXt", b"workflow\0\0abc"),
    "a text without an end": chunk(b"iTXt", b"workflow"),
    "a packed profile": chunk(b"iCCP", b"display\0\0" + BOMB),
    "a profile that is not packed": chunk(b"iCCP", b"display\0\0abc"),
    "a profile packed otherwise": chunk(b"iCCP", b"display\0\7abc"),
    "an empty profile": chunk(b"iCCP", b""),
    "a short resolution": chunk(b"pHYs", b"\0"),
    "a short gamma": chunk(b"gAMA", b""),
    "short primaries": chunk(b"cHRM", b"\0\0"),
    "a short intent": chunk(b"sRGB", b""),
    "an animation of nothing": chunk(b"acTL", b""),
    "frames in no order": chunk(b"acTL", struct.pack(">II", 9, 0)) + chunk(b"fcTL", bytes(26)) * 2,
    "a chunk of a program": chunk(b"prVt", b"abc"),
    "a wrong checksum": chunk(b"tEXt", b"a\0b", crc=1),
    "a wrong checksum of a time": chunk(b"tIME", bytes(7), crc=1),
    "EXIF twice": chunk(b"eXIf", exif(orientation(1))) + chunk(b"eXIf", exif(orientation(3))),
}


@pytest.mark.parametrize("said", PNG_CHUNKS)
def test_chunks_beside_a_png_do_not_matter(tmp_path: Path, said: str) -> None:
    body = PNG_CHUNKS[said]
    assert _same(dress_png(CLEAN["PNG"], body), "PNG", tmp_path)
    assert _same(dress_png(CLEAN["PNG"], after=body), "PNG", tmp_path)
    cut = dress_png(CLEAN["PNG"], after=body)[: -12 - len(body) // 2]
    assert _same(cut, "PNG", tmp_path)


def test_no_text_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    inflate = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda *x: made.append(x) or inflate(*x))
    monkeypatch.setattr(zlib, "decompress", lambda *x: made.append(x))
    texts = [PNG_CHUNKS["a packed text"], PNG_CHUNKS["a packed text in Unicode"]]
    assert _same(dress_png(CLEAN["PNG"], *texts), "PNG", tmp_path)
    assert made == []


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_what_is_needed_is_damage(tmp_path: Path, kind: bytes) -> None:
    image = Image.fromarray(noise()).quantize(16)
    content = saved(image, "PNG", transparency=bytes([0, 255, 51]))
    place = content.index(kind)
    size = int.from_bytes(content[place - 4 : place], "big")
    broken = bytearray(content)
    broken[place + 4 + size] ^= 1
    with pytest.raises(InputError, match="is damaged: "):
        _read(bytes(broken), tmp_path)


WEBP_CHUNKS = {
    "a broken profile": ((b"ICCP", b"abc"), 0x20),
    "a large profile": ((b"ICCP", bytes(2 * MIB)), 0x20),
    "a long text": ((b"XMP ", b"a" * 2 * MIB), 0x04),
    "a chunk of a program": ((b"abcd", b"abc"), 0),
    "EXIF that is not announced": ((b"EXIF", exif(orientation(6))), 0),
}


@pytest.mark.parametrize("said", WEBP_CHUNKS)
def test_chunks_beside_a_webp_do_not_matter(tmp_path: Path, said: str) -> None:
    body, flags = WEBP_CHUNKS[said]
    content = dress_webp(CLEAN["WEBP"], body, flags=flags, size=(32, 24))
    assert _same(content, "WEBP", tmp_path)


def test_blocks_beside_a_gif_do_not_matter(tmp_path: Path) -> None:
    clean = CLEAN["GIF"]
    start = 13 + (3 << (clean[10] & 7) + 1)
    comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 5000 + b"\0"
    for block in (comment, b"!\xff\x0bNETSCAPE2.0\0", b"!\xff\0", b"!\x01\x05abcde\0", b"\0\0"):
        assert _same(clean[:start] + block + clean[start:], "GIF", tmp_path)


TIFF_TAGS = {
    "a float": FLOAT_TAG,
    "a resolution by nothing": (0x011A, 5, 1, struct.pack("<L", 4)),
    "a profile beyond the file": (34675, 7, 9999, struct.pack("<L", 2**31)),
    "a profile of no bytes": (34675, 7, 0, bytes(4)),
    "EXIF beyond the file": (34665, 4, 1, struct.pack("<L", 2**31)),
    "EXIF that is no place": (34665, 11, 1, struct.pack("<f", 1.5)),
    "a type that is none": (40_000, 99, 1, bytes(4)),
    "a text without an end": (270, 2, 2**31, bytes(4)),
    "two orientations": (274, 3, 2, struct.pack("<HH", 6, 6)),
    "blocks of Photoshop": (34377, 1, 4, b"8BIM"),
}


@pytest.mark.parametrize("said", TIFF_TAGS)
def test_tags_beside_a_tiff_do_not_matter(tmp_path: Path, said: str) -> None:
    content = tiff(noise(), TIFF_TAGS[said])
    assert np.array_equal(_read(content, tmp_path), noise())


def test_the_orientation_is_found_among_odd_tags(tmp_path: Path) -> None:
    odd = [
        (0x010F, 2, 2**32 - 1, b"\0\0\0\1"),
        (0x0110, 99, 1, bytes(4)),
        orientation(3),
        FLOAT_TAG,
        COMPRESSION,
    ]
    body = exif(*odd)
    assert _turned(dress_jpeg(CLEAN["JPEG"], segment(0xE1, b"Exif\0\0" + body)), "JPEG", tmp_path)
    assert _turned(dress_png(CLEAN["PNG"], chunk(b"eXIf", body)), "PNG", tmp_path)
    assert _turned(dress_png(CLEAN["PNG"], after=chunk(b"eXIf", body)), "PNG", tmp_path)
    webp = dress_webp(CLEAN["WEBP"], (b"EXIF", body), flags=8, size=(32, 24))
    assert _turned(webp, "WEBP", tmp_path)
    marked = dress_webp(CLEAN["WEBP"], (b"EXIF", b"Exif\0\0" + body), flags=8, size=(32, 24))
    assert _turned(marked, "WEBP", tmp_path)
    assert _turned(tiff(noise(), *odd[:3]), "TIFF", tmp_path)


def test_the_orientation_of_xmp_counts_where_exif_has_none(tmp_path: Path) -> None:
    text = b'<rdf:Description tiff:Orientation="3"/>'
    mark = b"http://ns.adobe.com/xap/1.0/\0"
    assert _turned(dress_jpeg(CLEAN["JPEG"], segment(0xE1, mark + text)), "JPEG", tmp_path)
    said = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text)
    assert _turned(dress_png(CLEAN["PNG"], said), "PNG", tmp_path)
    both = dress_png(CLEAN["PNG"], said, chunk(b"eXIf", exif(orientation(1))))
    assert _same(both, "PNG", tmp_path)
    webp = dress_webp(CLEAN["WEBP"], (b"XMP ", text), flags=4, size=(32, 24))
    assert _turned(webp, "WEBP", tmp_path)


def _turned(content: bytes, kind: str, folder: Path) -> bool:
    return np.array_equal(_read(content, folder), _read(CLEAN[kind], folder)[::-1, ::-1])


def test_odd_tags_of_an_image_of_pillow_do_not_refuse_it() -> None:
    image = Image.fromarray(noise())
    for body in ODD_EXIF.values():
        image.info["exif"] = body
        assert np.array_equal(read_image(image.copy()), noise())


def test_a_webp_that_ends_early_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is damaged: "):
        _read(riff((b"VP8X", bytes(10))), tmp_path)
