"""Clip files of every kind, each frame of which says its number."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
VIDEOS = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "mov": ("mov", "libx264", "yuv420p"),
    "hevc": ("mp4", "libx265", "yuv420p"),
    "webm": ("webm", "libvpx-vp9", "yuv420p"),
    "vp8": ("webm", "libvpx", "yuv420p"),
    "matroska": ("matroska", "libx264", "yuv420p"),
    "avi": ("avi", "mjpeg", "yuvj420p"),
    "mpeg4": ("avi", "mpeg4", "yuv420p"),
}
QUIET: dict[str, dict[str, str]] = {"libx265": {"x265-params": "log-level=none"}}
STEP = 18


def frames(count: int) -> np.ndarray:
    """Return frames whose grey says their number, and whose top left is white."""
    grey = (20 + STEP * np.arange(count) % 220).astype(np.uint8)
    clip = np.broadcast_to(grey[:, None, None, None], (count, HEIGHT, WIDTH, 3)).copy()
    clip[:, : HEIGHT // 2, : WIDTH // 2] = 255
    return clip


def numbers(clip: np.ndarray) -> list[int]:
    """Return which frames those of a clip are."""
    return [round((int(grey) - 20) / STEP) for grey in clip[:, -1, -1, 0]]


def video(
    kind: str,
    count: int = 12,
    *,
    clip: np.ndarray | None = None,
    sound: bool = False,
    **options: str,
) -> bytes:
    """Return a video file of frames that say their number, 30 a second."""
    container, codec, pixels = VIDEOS[kind]
    shots = frames(count) if clip is None else clip
    with io.BytesIO() as file:
        made: Any = av.open(file, "w", format=container, options=options)
        with made:
            stream = made.add_stream(codec, rate=30)
            stream.height, stream.width = shots.shape[1:3]
            stream.pix_fmt = pixels
            stream.options = QUIET.get(codec, {})
            if sound:
                _add_silence(made)
            for shot in shots:
                frame = av.VideoFrame.from_ndarray(shot, format="rgb24")
                made.mux(stream.encode(frame.reformat(format=pixels)))
            made.mux(stream.encode(None))
        return file.getvalue()


def _add_silence(container: Any) -> None:
    stream = container.add_stream("aac", rate=48_000)
    for place in range(20):
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.rate, frame.pts = 48_000, 1024 * place
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def animation(kind: str, count: int = 12, *, delays: int | list[int] = 50, **options: Any) -> bytes:
    """Return a GIF or WebP file of frames that say their number."""
    first, *others = [Image.fromarray(frame) for frame in frames(count)]
    options = {"lossless": True, **options} if kind == "WEBP" else options
    with io.BytesIO() as file:
        first.save(
            file, format=kind, save_all=True, append_images=others, duration=delays, **options
        )
        return file.getvalue()


def turned(content: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Write another display matrix (a, b, c, d) into an MP4 file."""
    place = content.index(b"tkhd") + 44
    a, b, c, d = (x << 16 for x in matrix)
    numbers_of = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return content[:place] + numbers_of + content[place + 36 :]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Change some bytes, cut some out, double some, or write a number where one may be."""
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 8])):
        near = [chance.randrange(min(400, len(damaged))), chance.randrange(len(damaged))]
        place = chance.choice([*near, max(0, len(damaged) - 1 - chance.randrange(900))])
        length = chance.choice([1, 2, 4, 8, 40, 400])
        what = chance.randrange(5)
        if what == 0:
            damaged[place] = chance.randrange(256)
        elif what == 1:
            numbers_of = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\x10\0\0"]
            damaged[place : place + 4] = chance.choice(numbers_of)
        elif what == 2:
            del damaged[place : place + length]
        elif what == 3:
            damaged[place:place] = damaged[place : place + length]
        else:
            damaged[place : place + length] = chance.randbytes(length)
        damaged += bytes(max(0, 20 - len(damaged)))
    return bytes(damaged)
