"""Picture files put together by hand, with whatever else files carry."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

PNG_MARK = b"\x89PNG\r\n\x1a\n"


def noise(height: int = 24, width: int = 32) -> np.ndarray:
    """Return RGB that does not compress."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """Return the bytes of a file."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    with io.BytesIO() as file:
        picture.save(file, format=kind, **options)
        return file.getvalue()


def exif(*entries: tuple[int, int, int, bytes], rest: bytes = b"") -> bytes:
    """Return a directory of EXIF, little-endian: (tag, type, count, field)."""
    table = b"".join(struct.pack("<HHL4s", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4) + rest


def orientation(value: int) -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack("<HH", value, 0)


# --- JPEG ----------------------------------------------------------------------------------------


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def dress_jpeg(content: bytes, *segments: bytes, after: bytes = b"") -> bytes:
    """Put segments before those of a JPEG file, and bytes after its end."""
    return content[:2] + b"".join(segments) + content[2:] + after


# --- PNG -----------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    right = zlib.crc32(kind + body)
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", right if crc is None else crc)
    )


def dress_png(content: bytes, *before: bytes, after: bytes = b"", trailing: bytes = b"") -> bytes:
    """Put chunks after the header of a PNG file, after its pixels, and bytes after its end."""
    head, end = content[:33], content[33:-12]
    return head + b"".join(before) + end + after + content[-12:] + trailing


# --- WebP ----------------------------------------------------------------------------------------


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        struct.pack("<4sI", kind, len(part)) + part + b"\0" * (len(part) % 2)
        for kind, part in chunks
    )
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def dress_webp(
    content: bytes, *chunks: tuple[bytes, bytes], flags: int, size: tuple[int, int]
) -> bytes:
    """Make a simple WebP file one of the extended form, with further chunks."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    kind, length = struct.unpack_from("<4sI", content, 12)
    return riff(
        (b"VP8X", bytes([flags, 0, 0, 0]) + sides), (kind, content[20 : 20 + length]), *chunks
    )


# --- TIFF ----------------------------------------------------------------------------------------


def tiff(pixels: np.ndarray, *further: tuple[int, int, int, bytes]) -> bytes:
    """Return RGB as a TIFF file of one strip that is not packed, with further tags."""
    height, width = pixels.shape[:2]
    body = pixels.tobytes()
    body += b"\0" * (len(body) % 2)
    bits = 8 + len(body)

    def short(tag: int, value: int) -> tuple[int, int, int, bytes]:
        return tag, 4, 1, struct.pack("<L", value)

    entries = [
        *(short(256, width), short(257, height), (258, 3, 3, struct.pack("<L", bits))),
        *(short(259, 1), short(262, 2), short(273, 8), short(277, 3), short(278, height)),
        short(279, pixels.size),
        *further,
    ]
    place = bits + 6
    table = b"".join(struct.pack("<HHL4s", *entry) for entry in sorted(entries))
    head = b"II*\0" + struct.pack("<L", place)
    return (
        head
        + body
        + struct.pack("<3H", 8, 8, 8)
        + struct.pack("<H", len(entries))
        + table
        + bytes(4)
    )


# --- colour profiles -----------------------------------------------------------------------------

P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB_CURVE = b"para\0\0\0\0" + struct.pack(
    ">HH5i", 3, 0, *(round(65536 * x) for x in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)
ADOBE_CURVE = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563)


def profile(colorants: tuple[tuple[float, ...], ...] = P3, curve: bytes = SRGB_CURVE) -> bytes:
    """Return an ICC profile of a display."""
    bodies = [
        b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * x) for x in colour))
        for colour in colorants
    ]
    bodies.append(curve + b"\0" * (-len(curve) % 4))
    names = [b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"]
    place = 132 + 12 * len(names)
    table = struct.pack(">I", len(names))
    for index, name in enumerate(names):
        body = min(index, 3)
        start = place + sum(len(x) for x in bodies[:body])
        table += struct.pack(">4sII", name, start, len(bodies[body]))
    content = table + b"".join(bodies)
    head = struct.pack(">I4x4s4s4s4s", 128 + len(content), b"\4\0\0\0", b"mntr", b"RGB ", b"XYZ ")
    return head.ljust(36, b"\0") + b"acsp" + bytes(88) + content
