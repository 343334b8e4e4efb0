"""Frames of video files, decoded by FFmpeg with as little of it as is needed.

The demuxer is chosen here by the first bytes of the file and is not guessed; it is given the open
file and no name, and can open nothing further: playlists, streams of a network, references to
other files. Decoders are those of a list, with one thread, and with a bound on their pixels.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import numpy as np

from mvsdk._boxes import check_boxes
from mvsdk._shots import (
    MAX_CLIP_FRAMES,
    MAX_CLIP_PIXELS,
    MAX_READ_S,
    Shot,
    check_size,
    check_time,
)
from mvsdk.errors import InputError
from mvsdk.image import fit_image
from mvsdk.image._essence import DamageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from av import VideoFrame
    from numpy.typing import NDArray

MAX_PACKETS = 1 << 18
"""Packets up to the last frame that is taken; not each has a frame."""

_DECODERS = (
    *("h264", "hevc", "libdav1d", "av1", "vp9", "vp8", "libvpx", "libvpx-vp9"),
    *("mpeg4", "mpeg2video", "h263", "mjpeg", "prores", "dvvideo", "rawvideo", "ffv1"),
)
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_BT709, _UNSPECIFIED, _BT601 = 1, 2, 5
_MOST_FPS = 1000
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
_SMALL_ROWS = 576
"""Pictures of more rows are BT.709 if nothing is said, as players have it."""
_TURNS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
"""Signs of a display matrix (a, b, c, d) -> orientation of EXIF that says the same."""


def find_demuxer(head: bytes) -> str | None:
    """Return FFmpeg's name of the demuxer of a file that begins so; None for others."""
    if head[4:8] in _FIRST_BOXES:
        return "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:11] == b"AVI" else None


def read_footage(name: str, file: BinaryIO, size: int) -> Generator[Shot]:
    """Give the frames of a video file one after another.

    Args:
        name: What messages call the file.
        file: The file; it is left open.
        size: Its bytes.

    Raises:
        InputError: If its frames are too large or too many, or take too long.
        Exception: Whatever the decoder raises of a damaged file.
    """
    file.seek(0)
    demuxer = find_demuxer(file.read(16)) or ""
    if demuxer == "mov":
        check_boxes(file, size)
    file.seek(0)
    with _opened(file, demuxer) as container:
        stream = _find_stream(container)
        check_size(name, stream.codec_context.width, stream.codec_context.height)
        for shot in _shots(_frames(name, container, stream), stream.time_base):
            yield shot._replace(rate=_rate(stream))


def _opened(file: BinaryIO, demuxer: str) -> Any:
    """Open a file as a container; the lists bind what is opened inside of it too."""
    import av

    return av.open(
        file,
        "r",
        format=demuxer,
        options={
            "codec_whitelist": ",".join(_DECODERS),
            "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi",
            "protocol_whitelist": "",
            "max_streams": "64",
            "max_pixels": str(MAX_CLIP_PIXELS),
            "threads": "1",
        },
        metadata_errors="replace",
        io_open=_refuse_to_open,
        timeout=MAX_READ_S,
    )


def _refuse_to_open(url: str, *_: object) -> NoReturn:
    raise DamageError("it refers to other files")


def _find_stream(container: Any) -> Any:
    """Return the first stream of video; a picture of a cover is none."""
    for stream in container.streams.video:
        if not int(stream.disposition) & _ATTACHED_PICTURE:
            break
    else:
        raise DamageError("it holds no video")
    if stream.codec_context is None or stream.codec_context.codec.name not in _DECODERS:
        codec = "unknown" if stream.codec_context is None else stream.codec_context.codec.name
        raise DamageError(f"its codec {codec} is not among those that are read")
    if not stream.time_base:
        raise DamageError("it has no clock")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_CLIP_PIXELS)}
    return stream


def _frames(name: str, container: Any, stream: Any) -> Iterator[VideoFrame]:
    """Decode, within bounds of frames, packets and time."""
    start, count = time.monotonic(), 0
    for index, packet in enumerate(container.demux(stream)):
        for frame in packet.decode():
            count += 1
            if count > MAX_CLIP_FRAMES:
                raise InputError(f"{name} has more than {MAX_CLIP_FRAMES} frames; make it shorter")
            check_size(name, frame.width, frame.height)
            yield frame
        if index > MAX_PACKETS:
            raise InputError(f"{name} has more than {MAX_PACKETS} packets; make it shorter")
        check_time(name, start)


def _rate(stream: Any) -> Fraction | None:
    rate = stream.average_rate
    return rate if rate and 0 < rate <= _MOST_FPS else None


def _shots(frames: Iterator[VideoFrame], clock: Fraction) -> Iterator[Shot]:
    before: Fraction | None = None
    for frame in frames:
        if frame.is_corrupt:
            raise DamageError("pixels of a frame are missing")
        if frame.pts is None:
            raise DamageError("a frame has no time")
        now = frame.pts * clock
        gap = Fraction(0) if before is None else max(now - before, Fraction(0))
        yield Shot(now, frame.duration * clock if frame.duration > 0 else gap, _fitting(frame))
        before = now


def _fitting(frame: VideoFrame) -> Callable[[int, int], NDArray[np.uint8]]:
    return lambda height, width: fit_image(_to_rgb(frame), height, width)


def _to_rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    """Return a frame upright as RGB, uint8, (H, W, 3)."""
    space = frame.colorspace
    if space == _UNSPECIFIED:
        space = _BT709 if frame.height > _SMALL_ROWS else _BT601
    pixels: Any = frame.to_ndarray(format="rgb24", src_colorspace=space)
    return _turned(pixels, _orientation(frame))


def _orientation(frame: VideoFrame) -> int:
    """Return the orientation of EXIF that a display matrix says; 1 for what turns otherwise."""
    found = cast("Any", frame.side_data).get("DISPLAYMATRIX")
    numbers = np.zeros(9, np.int32) if found is None else np.frombuffer(bytes(found), np.int32)
    if numbers.size != 9:
        return 1
    a, b, c, d = (int(x) for x in np.sign(numbers[[0, 1, 3, 4]]))
    return _TURNS.get((a, b, c, d), 1)


def _turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
