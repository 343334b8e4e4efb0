"""The picture that a clip begins with: read with care, made upright, cropped and resized.

A picture file comes from anywhere, so its bytes are bounded before they are read and its pixels
before they are decoded, and only decoders of the formats below are asked. Of an animation the
first frame is taken; EXIF orientation is applied, transparency stands on white, and colours become
8-bit RGB as they are (no colour profile is applied).
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from mvsdk._arguments import check_path
from mvsdk.errors import InputError, PictureNotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    ImageSource = str | os.PathLike[str] | Image | NDArray[np.uint8]
    """A picture file, an image of Pillow, or RGB as uint8 (H, W, 3)."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are read, by Pillow's names. Others have decoders that run programs or scripts."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""What names of such files end with, in lower case. A file is read by its content, not its name."""
MAX_FILE_BYTES = 1 << 27
"""Largest picture file that is read."""
MAX_PIXELS = 1 << 26
"""Pixels of the largest picture, 8192 x 8192: decoded, they take a quarter of a gigabyte."""
MAX_SIDE = 65535

_LOCK = threading.Lock()  # filters of warnings belong to the whole process
_KNOWN = "PNG, JPEG, WebP, GIF, BMP or TIFF"
_PIXELS = f"allowed: at most {MAX_PIXELS} in all, and {MAX_SIDE} a side"
_GREY_16 = 2**16 - 1


def picture_name(source: ImageSource) -> str | None:
    """Return the name of a picture's file without its folder; None for one that has none."""
    named = getattr(source, "filename", source)  # an image of Pillow knows its file
    if not isinstance(named, str | os.PathLike):
        return None
    return Path(cast("str", named)).name or None


def load_image(source: ImageSource, height: int, width: int) -> NDArray[np.uint8]:
    """Read a picture and fit it to the size of a clip.

    Args:
        source: A picture file, an image of Pillow, or RGB as uint8 (H, W, 3).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        RGB, uint8, (height, width, 3); see `fit_image`.

    Raises:
        PictureNotFoundError: If there is no such file; this is a FileNotFoundError too.
        InputError: If it is too large, damaged or of another format.
    """
    return fit_image(read_image(source), height, width)


def read_image(source: ImageSource) -> NDArray[np.uint8]:
    """Read a picture as it is meant to be seen.

    Args:
        source: A picture file, an image of Pillow, or RGB as uint8 (H, W, 3).

    Returns:
        RGB, uint8, (H, W, 3).

    Raises:
        PictureNotFoundError: If there is no such file; this is a FileNotFoundError too.
        InputError: If it is too large, damaged or of another format.
    """
    if isinstance(source, np.ndarray):
        return _check_array(source)
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        return _decode("the picture", source)
    if not isinstance(source, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"the picture is of the type {type(source).__name__}; allowed: a path, an image of "
            "Pillow, or RGB as uint8 (H, W, 3)"
        )
    path = check_path("the picture", source, example="photo.png")
    name = f"picture {os.fspath(source)[-60:]!a}"
    payload = io.BytesIO(_read_file(name, path))
    with _as_input_errors(name):
        try:
            opened = Image.open(payload, formats=FORMATS)
        except UnidentifiedImageError as exc:
            raise InputError(f"{name} is no {_KNOWN} file; convert it to one") from exc
    with opened:
        return _decode(name, opened)


def fit_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut the middle of a picture out at the aspect of a clip, and resize it to the clip's size.

    Nothing is stretched: of a picture that is too wide both sides go, of one that is too high top
    and bottom. Resizing is Lanczos with three lobes, widened when it makes smaller, so that fine
    patterns fade and do not flicker.

    Args:
        image: RGB, uint8, (H, W, 3).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        RGB, uint8, (height, width, 3).
    """
    from PIL import Image

    rows, columns = image.shape[:2]
    kept_rows = min(rows, columns * height / width)
    kept_columns = min(columns, rows * width / height)
    top, left = (rows - kept_rows) / 2, (columns - kept_columns) / 2
    box = (left, top, left + kept_columns, top + kept_rows)
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.array(picture)


def _check_array(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"the picture is {image.dtype} {image.shape}; allowed: RGB as uint8 (H, W, 3) with no "
            "empty axis"
        )
    _check_pixels("the picture", image.shape[1], image.shape[0])
    return np.ascontiguousarray(image)


def _check_pixels(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise InputError(f"{name} has {width} x {height} pixels; {_PIXELS}; make it smaller")


def _read_file(name: str, path: Path) -> bytes:
    """Read a regular file of bounded size; a pipe or device could keep us waiting for ever."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is not a regular file; give the path of a {_KNOWN} file")
        if status.st_size <= MAX_FILE_BYTES:
            with path.open("rb") as file:
                # One byte more than allowed, in case the file grew since its size was read.
                payload = file.read(MAX_FILE_BYTES + 1)
            if len(payload) <= MAX_FILE_BYTES:
                return payload
    except (OSError, ValueError) as exc:  # ValueError: a null byte in the path
        if isinstance(exc, InputError):
            raise
        reason = (getattr(exc, "strerror", None) or str(exc)).lower()
        message = f"{name} cannot be read: {reason}; give the path of a {_KNOWN} file"
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            raise PictureNotFoundError(message, str(path)) from exc
        raise InputError(message) from exc
    raise InputError(f"{name} has more than {MAX_FILE_BYTES} bytes; make it smaller")


@contextlib.contextmanager
def _as_input_errors(name: str) -> Generator[None]:
    """Turn whatever a decoder raises or warns of into one line."""
    from PIL import Image

    try:
        with _LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which says nothing to the caller
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise InputError(f"{name} has too many pixels; {_PIXELS}; make it smaller") from exc
    except Exception as exc:  # decoders raise nearly anything on hostile bytes
        reason = " ".join(str(exc).lower().split())[:120] or type(exc).__name__
        raise InputError(f"{name} is damaged: {reason}; save it again") from exc


def _decode(name: str, image: Image) -> NDArray[np.uint8]:
    """Decode an image of Pillow, whose header alone is read so far."""
    _check_pixels(name, image.width, image.height)
    from PIL import ImageOps

    with _as_input_errors(name):
        image.load()
        return np.array(_to_rgb(name, ImageOps.exif_transpose(image)))


def _to_rgb(name: str, image: Image) -> Image:
    """Convert any mode to RGB."""
    from PIL import Image as image_module

    if image.mode == "F":
        raise InputError(f"{name} holds floating-point pixels; allowed: 8 or 16 bits; convert it")
    if image.mode[0] == "I":
        values = np.array(image)
        grey = _from_16_bits(name, values)
        if image.has_transparency_data:  # one value of 16 bits, which stands for nothing
            grey[values == image.info["transparency"]] = 255
        return image_module.fromarray(grey).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = image_module.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _from_16_bits(name: str, grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Bring grey of 16 bits to 8; Pillow itself would clip it."""
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > _GREY_16:
        raise InputError(f"{name} holds grey beyond 16 bits; allowed: 8 or 16 bits; convert it")
    return ((values + 128) // 257).astype(np.uint8)
