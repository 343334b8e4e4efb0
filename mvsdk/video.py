"""The result of a generation, and the files it can become.

Every file is written beside its final name and renamed when it is whole, so an interrupted or
failed `save` leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsdk._folders import is_mounted
from mvsdk._staging import reason_of, replacing
from mvsdk._text import quoted
from mvsdk.errors import InputError, OutputError
from mvsdk.manifest import MAX_FPS, MIN_FPS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from mvsdk.conditioning import MicroConditioning
    from mvsdk.generation import Timings

_MP4_SHORT_SIDE = 256
"""Players blur what they enlarge, and some refuse smaller clips."""
_MP4_CRF = "18"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Video:
    """A generated clip."""

    frames: NDArray[np.uint8]
    """RGB, uint8, (F, H, W, 3)."""
    fps: float
    seed: int
    prompt: str | None = None
    """What the clip was to show; None for one that begins with a picture."""
    conditioning: MicroConditioning | None = None
    """What a clip that begins with a picture was made under; None for the others."""
    timings: Timings | None = None
    """Where the time went; None for a clip that no pipeline made."""

    def __post_init__(self) -> None:
        """Check frames and rate."""
        shape, dtype = self.frames.shape, self.frames.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise InputError(
                f"frames are {dtype} {shape}; allowed: uint8 (F, H, W, 3) with no empty axis"
            )
        check_fps(self.fps)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float | None = None,
        scale: int | None = None,
        loop: int = 0,
    ) -> Path:
        """Write the clip to a file whose suffix says the kind; a file of that name is replaced.

        `.mp4` is H.264 (4:2:0, BT.709), `.webp` an animation without loss, `.gif` one of 256
        colours a frame, `.png` a sheet of all frames, `.npy` the frames as they are.

        Args:
            path: File to write, in a folder that exists.
            fps: Frames per second; None keeps the clip's own.
            scale: Every pixel becomes `scale` x `scale` pixels. None: for `.mp4` the smallest that
                brings the short side to 256 pixels or more, for all others 1.
            loop: How often `.webp` and `.gif` play; 0 means for ever.

        Returns:
            The path.

        Raises:
            InputError: If `fps`, `scale` or `loop` is out of range.
            OutputError: If the suffix is unknown, or the file cannot be written.
        """
        path = Path(path)
        writer = _WRITERS[check_suffix(path)]
        fps = check_fps(self.fps if fps is None else fps)
        if scale is not None:
            check_scale(scale)
        if not 0 <= loop <= 65535:
            raise InputError(f"loop is {loop}; allowed: 0 to 65535")
        if scale is None:
            short_side = min(self.frames.shape[1:3])
            scale = math.ceil(_MP4_SHORT_SIDE / short_side) if writer is _write_mp4 else 1
        frames = self.frames.repeat(scale, axis=1).repeat(scale, axis=2)
        with _replacing(path) as temporary:
            writer(temporary, frames, fps, loop)
        return path


def check_scale(scale: int) -> int:
    """Return a factor of enlargement.

    Raises:
        InputError: If it is out of range.
    """
    if not 1 <= scale <= 64:
        raise InputError(f"scale is {scale}; allowed: 1 to 64")
    return scale


def check_suffix(path: Path) -> str:
    """Return the suffix of an output file in lower case.

    Raises:
        OutputError: If no writer knows it.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise OutputError(
            f"cannot write {quoted(path.name)}: suffix {quoted(suffix)}; allowed: "
            f"{', '.join(_WRITERS)}"
        )
    return suffix


def check_folder(path: Path) -> None:
    """Check that a file can be made at a path, so that nothing is computed in vain.

    Raises:
        OutputError: If its folder does not exist or cannot be written to, or the path is a folder,
            a mount or too long.
    """
    folder = path.parent
    name = quoted(path)
    if "\0" in str(path):
        raise OutputError(f"cannot write {name}: it holds a null byte; choose another name")
    try:
        is_folder, has_folder = path.is_dir(), folder.is_dir()
        is_mount = path.is_file() and is_mounted(path)
    except OSError as exc:  # a name that is too long
        raise OutputError(f"cannot write {name}: {reason_of(exc)}; give a shorter one") from exc
    if is_folder:
        raise OutputError(f"cannot write {name}: it is a folder; give a file name")
    if not has_folder:
        raise OutputError(f"cannot write {name}: no folder {quoted(folder)}; make it first")
    if is_mount:
        raise OutputError(f"cannot write {name}: a file is mounted there; choose another name")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write {name}: folder {quoted(folder)} is not writable; choose another"
        )


@contextlib.contextmanager
def _replacing(path: Path) -> Generator[Path]:
    """Lend a name in the same folder; put the file in place if the block ends well."""
    check_folder(path)
    temporary: Path | None = None
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as exc:
        left = temporary is not None and os.path.lexists(temporary)
        kept = f"remove {quoted(temporary)}, which is left" if left else "nothing was kept"
        raise OutputError(f"cannot write {quoted(path)}: {reason_of(exc)}; {kept}") from exc


def _write_mp4(path: Path, frames: NDArray[np.uint8], fps: float, loop: int) -> None:
    del loop  # a player's business
    import av

    file: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    with file as container:
        try:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        except ValueError as exc:  # an unknown encoder
            raise OutputError(
                "this build of av has no H.264 encoder; save as .webp, or reinstall av from a wheel"
            ) from exc
        even = _pad_to_even(frames)
        _configure(stream, height=even.shape[1], width=even.shape[2])
        for frame in even:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", **_BT709)))
        container.mux(stream.encode(None))


# Players take small clips without a note for BT.601, large ones for BT.709: so convert to one of
# them and note it in the stream. 1 is BT.709, and limited range, in every field (ITU-T H.273).
_BT709 = {"dst_colorspace": 1, "dst_color_range": 1}


def _configure(stream: Any, *, height: int, width: int) -> None:
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": _MP4_CRF, "preset": "medium"}
    codec = stream.codec_context
    codec.colorspace = codec.color_primaries = codec.color_trc = codec.color_range = 1


def _pad_to_even(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row and column where a side is odd: 4:2:0 halves the colour planes."""
    height, width = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _write_webp(path: Path, frames: NDArray[np.uint8], fps: float, loop: int) -> None:
    first, *others = _images(frames)
    first.save(
        path,
        format="WEBP",
        save_all=True,
        append_images=others,
        duration=_durations(len(frames), fps, unit_ms=1),
        loop=loop,
        lossless=True,
    )


def _write_gif(path: Path, frames: NDArray[np.uint8], fps: float, loop: int) -> None:
    first, *others = (image.quantize(256) for image in _images(frames))
    # A GIF without the loop extension plays once; with a count n it plays n + 1 times.
    plays = {} if loop == 1 else {"loop": max(loop - 1, 0)}
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=_durations(len(frames), fps, unit_ms=10),
        disposal=1,
        **plays,
    )


def _write_png(path: Path, frames: NDArray[np.uint8], fps: float, loop: int) -> None:
    del fps, loop
    count, height, width, _ = frames.shape
    columns = _sheet_columns(count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * columns, height, width, 3), 255, np.uint8)
    sheet[:count] = frames
    grid = sheet.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    (image,) = _images(grid.reshape(1, rows * height, columns * width, 3))
    image.save(path, format="PNG")


def _write_npy(path: Path, frames: NDArray[np.uint8], fps: float, loop: int) -> None:
    del fps, loop
    content = io.BytesIO()  # written in one go, as np.save hides why a disk refused
    np.save(content, frames, allow_pickle=False)
    path.write_bytes(content.getbuffer())


_WRITERS: dict[str, Callable[[Path, NDArray[np.uint8], float, int], None]] = {
    ".mp4": _write_mp4,
    ".webp": _write_webp,
    ".gif": _write_gif,
    ".png": _write_png,
    ".npy": _write_npy,
}


def _images(frames: NDArray[np.uint8]) -> list[Image]:
    from PIL import Image

    return [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]


def _durations(count: int, fps: float, *, unit_ms: int) -> list[int]:
    """Return milliseconds per frame in multiples of `unit_ms`, so that the errors do not add up."""
    marks = [round(index * 1000 / (fps * unit_ms)) for index in range(count + 1)]
    return [max(1, after - before) * unit_ms for before, after in pairwise(marks)]


def _sheet_columns(count: int) -> int:
    """Return the columns of a nearly square sheet, without holes where that is possible."""
    square = math.ceil(math.sqrt(count))
    return next((c for c in range(square, 2 * square + 1) if count % c == 0), square)


def check_fps(fps: float) -> float:
    """Return a number of frames per second that every container can time.

    Raises:
        InputError: If it is out of range.
    """
    if not MIN_FPS <= fps <= MAX_FPS:
        raise InputError(f"fps is {fps}; allowed: {MIN_FPS:g} to {MAX_FPS:g}")
    return fps
