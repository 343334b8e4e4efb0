"""The picture that a clip begins with: read with care, made upright, cropped and resized.

A picture file comes from anywhere, so its bytes are bounded before they are read and its pixels
before they are decoded, and only decoders of the formats below are asked. They are given the
pixels alone: what else a file says, beside the orientation of EXIF or XMP and the name of its
colours, is stepped over unread, and may be broken.

Of an animation the first frame is taken; the orientation is applied and transparency stands on
white. Colours become 8-bit RGB, which is taken for sRGB: those of a picture with a profile of
Display P3 or Adobe RGB (1998) are converted, and so are inks (CMYK), by the plain formula that
knows no paper. No other profile is applied, nor gAMA and cHRM of PNG: values are kept as they are.

Reading the largest picture for a clip takes, with its file, about 0.3 GiB of memory (measured, with
Pillow 13), up to 0.65 GiB for a progressive JPEG and 1.05 GiB for WebP, whose decoders hold more;
`read_image`, which returns all of it, takes 0.5 GiB where these take less.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from mvsdk._arguments import check_path
from mvsdk._text import quoted, reason_of
from mvsdk.errors import InputError, PictureNotFoundError
from mvsdk.image._chunks import PNG_MARK, read_bmp, read_gif, read_png, read_webp
from mvsdk.image._colours import find_space
from mvsdk.image._essence import ORIENTATION, DamageError, Essence, Refusal, read_orientation
from mvsdk.image._fitting import fit_rows
from mvsdk.image._jpeg import read_jpeg
from mvsdk.image._tiff import TIFF_MARKS, read_tiff
from mvsdk.image._upright import Upright, stack_rows

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
"""Pixels of the largest picture, 8192 x 8192."""
MAX_SIDE = 65535

_LIBTIFF = re.compile(
    rb"^(?:tempfile\.tif|MissingRequired|EstimateStripByteCounts|CheckDirCount|ChopUp\w*|fpAcc"
    rb"|\w*(?:TIFF|JPEG|Fax|LZW|ZIP|ZSTD|LZMA|WebP|PackBits|Thunder|NeXT|LogLuv|LogL16|PixarLog"
    rb"|DumpMode|Predictor|Acc)\w*): "
)
"""Lines that the library prints, past Pillow, of a damaged file: where it is, and what it is."""
_KNOWN = "PNG, JPEG, WebP, GIF, BMP or TIFF"
_PIXELS = f"allowed: at most {MAX_PIXELS} in all, and {MAX_SIDE} a side"


def picture_name(source: object) -> str | None:
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
    if isinstance(source, np.ndarray):
        return fit_image(_check_array(source), height, width)
    with _opened(source) as picture:
        return fit_rows(picture.rows, picture.shape, height, width)


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
    with _opened(source) as picture:
        return stack_rows(picture.rows, picture.shape)


def fit_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut the middle of a picture out at the aspect of a clip, and resize it to the clip's size.

    Nothing is stretched: of a picture that is too wide both sides go, of one that is too high top
    and bottom. Resizing is cubic convolution, widened when it makes smaller, so that fine patterns
    fade and do not flicker; every byte of it is specified (docs/pictures.md).

    Args:
        image: RGB, uint8, (H, W, 3).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        RGB, uint8, (height, width, 3).
    """

    def rows(first: int, last: int) -> NDArray[np.uint8]:
        return image[first:last]

    return fit_rows(rows, (image.shape[0], image.shape[1]), height, width)


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


@contextlib.contextmanager
def _opened(source: Image | str | os.PathLike[str]) -> Generator[Upright]:
    """Open a picture; whatever its decoder raises inside becomes one line."""
    from PIL import Image as image_module

    if isinstance(source, image_module.Image):
        with as_input_errors("the picture"):
            yield _decode_image(source)
    elif isinstance(source, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        path = check_path("the picture", source, example="photo.png")
        name = f"picture {quoted(path)}"
        with as_input_errors(name):
            yield _decode_file(name, _read_essence(name, path))
    else:
        raise InputError(
            f"the picture is of the type {type(source).__name__}; allowed: a path, an image of "
            "Pillow, or RGB as uint8 (H, W, 3)"
        )


@contextlib.contextmanager
def as_input_errors(name: str) -> Generator[None]:
    """Turn whatever a decoder raises of a file into one line that begins with its name."""
    try:
        yield
    except InputError:
        raise
    except Refusal as exc:
        raise InputError(f"{name} {exc}") from exc
    except Exception as exc:  # decoders raise nearly anything on hostile bytes
        said = getattr(exc, "strerror", None) or exc
        reason = " ".join(str(said).lower().split())[:120] or type(exc).__name__
        raise InputError(f"{name} is damaged: {reason}; save it again") from exc


def _decode_image(image: Image) -> Upright:
    """Decode an image of a caller's, who may have opened it only."""
    _check_pixels("the picture", image.width, image.height)
    image.load()
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # of odd tags, which say nothing about pixels
        orientation = read_orientation(_bytes_of(image, "exif"))
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = 1
    space = find_space(_bytes_of(image, "icc_profile"))
    return Upright("the picture", image, orientation, space)


def _bytes_of(image: Image, key: str) -> bytes:
    value = image.info.get(key)
    return value if isinstance(value, bytes) else b""


def _read_essence(name: str, path: Path) -> Essence:
    data = _read_file(name, path)
    reader = _reader_of(data)
    if reader is None:
        raise InputError(f"{name} is no {_KNOWN} file; convert it to one")
    return reader(data)


def _reader_of(data: bytes) -> Callable[[bytes], Essence] | None:
    if data.startswith(b"\xff\xd8\xff"):
        return read_jpeg
    if data.startswith(PNG_MARK):
        return read_png
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return read_webp
    if data.startswith((b"GIF87a", b"GIF89a")):
        return read_gif
    if data.startswith(b"BM"):
        return read_bmp
    return read_tiff if data[:4] in TIFF_MARKS else None


def _decode_file(name: str, essence: Essence) -> Upright:
    from PIL import Image, UnidentifiedImageError

    _check_pixels(name, essence.width, essence.height)
    try:
        image = Image.open(io.BytesIO(essence.content), formats=[essence.kind])
    except UnidentifiedImageError as exc:
        raise DamageError(f"its header is no {essence.kind} that is known") from exc
    _check_pixels(name, image.width, image.height)
    if essence.kind == "TIFF":
        _load_quietly(image)
    else:
        image.load()
    return Upright(name, image, essence.orientation, essence.space)


def _load_quietly(image: Image) -> None:
    """Decode a TIFF file, whose library prints what it finds."""
    from mvsdk.backends.native_output import captured_native_output

    with captured_native_output(_LIBTIFF):
        image.load()


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
        reason = reason_of(exc)
        message = f"{name} cannot be read: {reason}; give the path of a {_KNOWN} file"
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            raise PictureNotFoundError(message, str(path)) from exc
        raise InputError(message) from exc
    raise InputError(f"{name} has more than {MAX_FILE_BYTES} bytes; make it smaller")
