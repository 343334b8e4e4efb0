"""The first ten subjects of the shipped models, as the stage `data` would have drawn them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mvsdk_export.training.data.sprites import Sprites, load_subjects

SHEET = Path(__file__).with_name("ten_subjects.webp")
"""A row each: 8 frames of 64 x 64, premultiplied RGBA. Fluent emoji, (c) Microsoft, MIT."""


def read_sample(source_frames: int) -> Sprites:
    """Read them with so many frames of their loops."""
    with Image.open(SHEET) as sheet:
        rows = np.asarray(sheet.convert("RGBA"))
    drawn = rows.reshape(10, 64, 8, 64, 4).transpose(0, 2, 1, 3, 4)
    loop = np.arange(source_frames) * 8 // source_frames
    return Sprites(subjects=load_subjects()[:10], rgba=np.ascontiguousarray(drawn[:, loop]))
