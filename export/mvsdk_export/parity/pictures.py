"""Pictures that calibrate and verify image-to-video models.

Those of a user's own folder, or, where there is none, first frames that the SDK's own
text-to-video model makes of a recipe's prompts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsdk._text import quoted, reason_of
from mvsdk.errors import InputError
from mvsdk.image import SUFFIXES, fit_image, load_image, read_image
from mvsdk.runner import to_bytes
from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.families.pipeline import Clip
from mvsdk_export.jobs.progress import counted
from mvsdk_export.parity.reference import Case, Reference

IMAGE_MODEL = "sticker"
"""Recipe of the model that makes pictures of prompts."""
IMAGE_STEPS = 4

MOST = 32
"""Most pictures of a folder that calibrate."""
VERIFIED = 4
"""Pictures of a folder that verify; they calibrate nothing."""

Picture = NDArray[np.uint8]
"""(H, W, 3), RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFiles:
    """Names of the pictures of a folder, split by what they are for."""

    folder: Path
    calibration: tuple[str, ...]
    verification: tuple[str, ...]


def find_pictures(folder: Path) -> PictureFiles:
    """List the pictures of a folder by name: the first verify, those after them calibrate.

    Pictures are regular files, or links to some, with a suffix of a picture; they are not opened.
    Hidden files are none: macOS puts a `._photo.jpg` beside each photo on a foreign disk.

    Raises:
        InputError: If there is no such folder, it cannot be listed, or too little is in it for
            both.
    """
    if not os.path.isdir(folder):  # and no error where its own folder may not be read
        raise InputError(
            f"--pictures is {quoted(folder)}, which is no folder that you may read; give one with "
            "at least 2 pictures"
        )
    try:
        found = [x for x in folder.iterdir() if _is_picture(x)]
    except OSError as exc:
        reason = reason_of(exc)
        raise InputError(
            f"{quoted(folder)} cannot be listed: {reason}; give a folder that you may read"
        ) from exc
    names = sorted(x.name for x in found)
    if len(names) < 2:
        raise InputError(
            f"{quoted(folder)} holds {len(names)} picture{'s' * (len(names) != 1)} "
            f"({', '.join(sorted(SUFFIXES))}; hidden files are none), expected at least 2, "
            f"better {VERIFIED + MOST}: some calibrate, others verify"
        )
    split = min(VERIFIED, len(names) // 2)
    return PictureFiles(
        folder=folder,
        calibration=tuple(names[split : split + MOST]),
        verification=tuple(names[:split]),
    )


def _is_picture(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in SUFFIXES and path.is_file()


def check_pictures(folder: Path) -> None:
    """Read the pictures of a folder that will be used, and keep none.

    Raises:
        InputError: As `find_pictures`, or if one cannot be read.
    """
    files = find_pictures(folder)
    for name in (*files.verification, *files.calibration):
        read_image(folder / name)


def read_pictures(folder: Path, names: Sequence[str], height: int, width: int) -> list[Picture]:
    """Read pictures of a folder, cropped and resized as `mvsdk animate` does.

    Raises:
        InputError: If one cannot be read.
    """
    return [load_image(folder / name, height, width) for name in counted(names, "pictures")]


def synthesize_images(
    model: ModelFolder, prompts: Sequence[str], height: int, width: int
) -> list[Picture]:
    """Make pictures of prompts, by the SDK's own text-to-video model: the first frame of each clip.

    Args:
        model: Model folder of the recipe `IMAGE_MODEL`.
        prompts: What they show; the seed of each is its place.
        height: Of the pictures; what the model makes is cropped and resized to it.
        width: Likewise.
    """
    recipe = model.recipe
    clip = Clip(
        num_frames=recipe.num_frames,
        height=recipe.height,
        width=recipe.width,
        decode_frames=recipe.num_frames,
        steps=(IMAGE_STEPS,),
        default_steps=IMAGE_STEPS,
    )
    size: dict[str, Any] = {
        "num_frames": clip.num_frames,
        "height": clip.height,
        "width": clip.width,
    }
    networks = {part.name: model.load_graph(part.name, **size) for part in recipe.components}
    reference = Reference.of(model, clip, networks)
    pictures: list[Picture] = []
    for seed, prompt in enumerate(counted(prompts, "pictures")):
        case = Case(prompt=prompt, seed=seed, num_inference_steps=IMAGE_STEPS)
        frames = reference.run(case)[-1].outputs["frames"]
        pictures.append(fit_image(to_bytes(frames[0]), height, width))
    return pictures
