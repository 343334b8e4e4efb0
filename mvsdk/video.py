"""The result of a generation, and the files it can become.

Every file is written beside its final name and renamed when it is whole, so an interrupted or
failed `save` leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mvsdk._arguments import (
    check_flag,
    check_kind,
    check_number,
    check_path,
    check_text,
    check_whole_number,
    shown,
)
from mvsdk._folders import is_mounted
from mvsdk._metadata import describe_making, to_xmp
from mvsdk._staging import replacing
from mvsdk._text import quoted, reason_of
from mvsdk.errors import InputError, OutputError
from mvsdk.generation import GenerateOptions, Timings
from mvsdk.manifest import MAX_FPS, MIN_FPS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_MP4_SHORT_SIDE = 256
"""Players blur what they enlarge, and some refuse smaller clips."""
_MP4_CRF = "18"
_MAX_SIDE = 16383
"""Pixels of a side in WebP, the least of the kinds of files; H.264 has the same limit about."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Video:
    """A generated clip."""

    frames: NDArray[np.uint8]
    """RGB, uint8, (F, H, W, 3)."""
    fps: float
    seed: int
    prompt: str | None = None
    """What the clip was to show; None for one that was made without words."""
    picture: str | None = None
    """Name of the picture file that the clip begins with, without its folder; None for others."""
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else the clip was made under, such as `motion`, by the names of the bundle's inputs."""
    notes: tuple[str, ...] = ()
    """What its maker is to know, such as how much of a prompt was cut."""
    num_inference_steps: int | None = None
    """Steps of the sampler; None where nobody chooses them, or no pipeline made the clip."""
    bundle_sha256: str | None = None
    """Hash of the manifest of the bundle that made it; None for a clip that no pipeline made."""
    timings: Timings | None = None
    """Where the time went; None for a clip that no pipeline made."""

    def __post_init__(self) -> None:
        """Check frames, rate, and what is said of them."""
        _check_frames(self.frames)
        options = GenerateOptions(seed=self.seed, num_inference_steps=self.num_inference_steps)
        object.__setattr__(self, "fps", check_fps(self.fps))
        object.__setattr__(self, "seed", options.seed)
        object.__setattr__(self, "num_inference_steps", options.num_inference_steps)
        for name in ("prompt", "picture", "bundle_sha256"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        check_kind("numbers", self.numbers, Mapping, how="pass a dict: name to number")
        if self.timings is not None:
            check_kind("timings", self.timings, Timings, how="a pipeline's clip has them")

    def __repr__(self) -> str:
        """Return what the clip is in one line, without its frames."""
        count, height, width, _ = self.frames.shape
        subject = self.picture if self.prompt is None else self.prompt
        told = "" if subject is None else f", {shown(subject)}"
        return (
            f"Video({count} frames of {width} x {height} at {self.fps:g} fps, seed {self.seed}"
            f"{told})"
        )

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float | None = None,
        scale: int | None = None,
        loop: int = 0,
        metadata: bool = True,
    ) -> Path:
        """Write the clip to a file whose suffix says the kind; a file of that name is replaced.

        `.mp4` is H.264 (4:2:0, BT.709), `.webp` an animation without loss, `.gif` one of 256
        colours a frame, `.png` a sheet of all frames, `.npy` the frames as they are.

        Args:
            path: File to write, in a folder that exists.
            fps: Frames per second; None keeps the clip's own.
            scale: Every pixel becomes `scale` x `scale` pixels. None: for `.mp4` the smallest that
                brings the short side to 256 pixels or more, as players blur what they enlarge; for
                all others 1, the pixels as the model made them.
            loop: How often `.webp` and `.gif` play; 0 means for ever.
            metadata: Whether the file says how the clip was made: prompt or picture, seed, steps,
                hash of the bundle, version of mvsdk (`mvsdk._metadata`). `.npy` never does.

        Returns:
            The path.

        Raises:
            InputError: If the path's suffix is unknown, or an argument is not allowed.
            OutputError: If the file cannot be written.
        """
        path = check_path("path", path, example="clip.mp4")
        suffix = check_suffix(path)
        fps = check_fps(self.fps if fps is None else fps)
        loop = check_whole_number("loop", loop, low=0, high=65535)
        told = describe_making(self) if check_flag("metadata", metadata) else None
        scale = self._scale(suffix, None if scale is None else check_scale(scale))
        frames = self.frames.repeat(scale, axis=1).repeat(scale, axis=2)
        with _replacing(path) as temporary:
            _WRITERS[suffix](temporary, frames, fps, loop, told)
        return path

    def _scale(self, suffix: str, scale: int | None) -> int:
        """Return how often a pixel is repeated to each side, after checking what comes of it."""
        height, width = self.frames.shape[1:3]
        most = max(1, _MAX_SIDE // max(height, width))
        if scale is None:
            wanted = math.ceil(_MP4_SHORT_SIDE / min(height, width)) if suffix == ".mp4" else 1
            return min(wanted, most)
        if scale > most:
            raise InputError(
                f"scale is {scale}; allowed: 1 to {most} for {width} x {height} pixels, as files "
                f"of clips have at most {_MAX_SIDE} a side"
            )
        return scale


def _check_frames(frames: object) -> None:
    if not isinstance(frames, np.ndarray):
        raise InputError(
            f"frames are {shown(frames)}; allowed: an array of uint8 (F, H, W, 3); "
            "use numpy.asarray"
        )
    array = cast("NDArray[Any]", frames)
    shape, dtype = array.shape, array.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise InputError(
            f"frames are {dtype} {shape}; allowed: uint8 (F, H, W, 3) with no empty axis"
        )


def check_scale(scale: int) -> int:
    """Return a factor of enlargement.

    Raises:
        InputError: If it is no whole number, or out of range.
    """
    return check_whole_number("scale", scale, low=1, high=64, allowed="1 to 64")


def check_suffix(path: Path) -> str:
    """Return the suffix of an output file in lower case.

    Raises:
        InputError: If no writer knows it.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise InputError(
            f"cannot write {quoted(path.name)}: suffix {quoted(suffix)}; "
            f"allowed: {', '.join(_WRITERS)}"
        )
    return suffix


def check_folder(path: Path) -> None:
    """Check that a file can be made at a path, so that nothing is computed in vain.

    Raises:
        InputError: If it holds a null byte.
        OutputError: If its folder does not exist or cannot be written to, or the path is a folder,
            a mount or too long.
    """
    folder = path.parent
    name = quoted(path)
    if "\0" in str(path):
        raise InputError(f"path is {name}; allowed: names without null bytes")
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


def _write_mp4(
    path: Path, frames: NDArray[np.uint8], fps: float, loop: int, told: str | None
) -> None:
    del loop  # a player's business
    import av

    file: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    with file as container:
        if told is not None:
            container.metadata["comment"] = told
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


def _write_webp(
    path: Path, frames: NDArray[np.uint8], fps: float, loop: int, told: str | None
) -> None:
    first, *others = _images(frames)
    first.save(
        path,
        format="WEBP",
        save_all=True,
        append_images=others,
        duration=_durations(len(frames), fps, unit_ms=1),
        loop=loop,
        lossless=True,
        xmp=b"" if told is None else to_xmp(told),
    )


def _write_gif(
    path: Path, frames: NDArray[np.uint8], fps: float, loop: int, told: str | None
) -> None:
    first, *others = (image.quantize(256) for image in _images(frames))
    # A GIF without the loop extension plays once; with a count n it plays n + 1 times.
    plays = {} if loop == 1 else {"loop": max(loop - 1, 0)}
    comment = {} if told is None else {"comment": told.encode()}
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=_durations(len(frames), fps, unit_ms=10),
        disposal=1,
        **plays,
        **comment,
    )


def _write_png(
    path: Path, frames: NDArray[np.uint8], fps: float, loop: int, told: str | None
) -> None:
    del fps, loop
    from PIL.PngImagePlugin import PngInfo

    count, height, width, _ = frames.shape
    columns = _sheet_columns(count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * columns, height, width, 3), 255, np.uint8)
    sheet[:count] = frames
    grid = sheet.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    (image,) = _images(grid.reshape(1, rows * height, columns * width, 3))
    chunks = PngInfo()
    if told is not None:
        chunks.add_itxt("Comment", told)
    image.save(path, format="PNG", pnginfo=chunks)


def _write_npy(
    path: Path, frames: NDArray[np.uint8], fps: float, loop: int, told: str | None
) -> None:
    del fps, loop, told
    content = io.BytesIO()  # written in one go, as np.save hides why a disk refused
    np.save(content, frames, allow_pickle=False)
    path.write_bytes(content.getbuffer())


_WRITERS: dict[str, Callable[[Path, NDArray[np.uint8], float, int, str | None], None]] = {
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
        InputError: If it is no number, or out of range.
    """
    return check_number("fps", fps, low=MIN_FPS, high=MAX_FPS)
