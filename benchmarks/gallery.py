"""Make the README's pictures: clips of some prompts as one animated WebP.

    python benchmarks/gallery.py BUNDLE [--out docs/gallery.webp] [--steps 4]
    python benchmarks/gallery.py B.mvbundle:fp32 B.mvbundle:w8a16 --out docs/side_by_side.webp

One bundle: all prompts, side by side. Several, each with a precision or without: a row of clips
with equal seeds for each of the first prompts, to compare what computed them. Subject, motion and
colour of the prompts marked with a star were never together in training: they are the combinations
that its captions hold back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mvsdk
from mvsdk_export.training.data.captions import held_out_background, held_out_motion
from mvsdk_export.training.data.sprites import load_subjects

PROMPTS = (
    ("a rocket flying left", 7),
    ("a dog running to the right on green", 1),
    ("a big octopus spinning on blue", 2),
    ("a pizza and a robot on yellow", 3),
    ("a whale swimming down on pink", 4),
    ("a tiny dragon zooming in on black", 5),
    ("a thinking face flipping on white", 6),
    ("a red balloon floating up on purple", 8),
    ("a penguin", 9),
    ("a penguin", 10),
)
"""Prompts and seeds; the last two differ by the seed alone."""

HELD_OUT = ("crown", "ghost", "unicorn", "guitar", "snail")
"""Subjects that are shown with the motion and on the background that training kept from them."""

COLUMNS = 5
ZOOM = 2
CAPTION = 38
"""Pixels below a clip for its prompt and seed."""

COMPARED = 4
"""Prompts that several bundles are compared on."""

MOST_BYTES = 3_000_000


def main() -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", metavar="BUNDLE[:PRECISION]", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery.webp"))
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    if len(options.bundles) == 1:
        cells = draw_gallery(options.bundles[0], options.steps)
        columns = COLUMNS
    else:
        cells = compare_bundles(options.bundles, options.steps)
        columns = len(options.bundles)
    rows = [
        np.concatenate(cells[start : start + columns], axis=2)
        for start in range(0, len(cells), columns)
    ]
    frames = [Image.fromarray(frame) for frame in np.concatenate(rows, axis=1)]
    frames[0].save(
        options.out, save_all=True, append_images=frames[1:], duration=125, loop=0, quality=80
    )
    size = options.out.stat().st_size
    if size > MOST_BYTES:
        print(f"{options.out} has {size} bytes, allowed are {MOST_BYTES}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(cells)} clips, {size} bytes")
    return 0


def draw_gallery(bundle: str, steps: int) -> list[np.ndarray]:
    """Return labelled clips `(F, H, W, 3)` of all prompts."""
    pipeline = open_bundle(bundle)
    return [
        label_clip(
            pipeline.generate(prompt, num_inference_steps=steps, seed=seed).frames,
            f"{prompt}{' *' if starred else ''}, seed {seed}",
        )
        for prompt, seed, starred in all_prompts()
    ]


def compare_bundles(bundles: Sequence[str], steps: int) -> list[np.ndarray]:
    """Return labelled clips of the first prompts, those of a prompt beside each other."""
    pipelines = [open_bundle(name) for name in bundles]
    return [
        label_clip(
            pipeline.generate(prompt, num_inference_steps=steps, seed=seed).frames,
            f"{prompt}: {pipeline.selection.label}",
        )
        for prompt, seed in PROMPTS[:COMPARED]
        for pipeline in pipelines
    ]


def open_bundle(name: str) -> mvsdk.Pipeline:
    """Open a bundle, by `PATH` or `PATH:PRECISION`."""
    path, _, precision = name.partition(":")
    return mvsdk.load(path, precision=precision or None)


def all_prompts() -> list[tuple[str, int, bool]]:
    """Return prompt, seed, and whether training kept the combination back."""
    subjects = {subject.id: subject for subject in load_subjects()}
    phrases = {"zoom in": "zooming in", "zoom out": "zooming out"}
    phrases |= {"spin": "spinning", "flip": "flipping"}
    held_out = [
        (
            f"a {subject.noun} {phrases.get(motion, f'moving {motion}')} on "
            f"{held_out_background(subject)}",
            11 + index,
            True,
        )
        for index, subject in enumerate(subjects[name] for name in HELD_OUT)
        for motion in [held_out_motion(subject)]
    ]
    return [(prompt, seed, False) for prompt, seed in PROMPTS] + held_out


def label_clip(frames: np.ndarray, text: str) -> np.ndarray:
    """Enlarge a clip `(F, H, W, 3)` and write below it what it shows."""
    large = frames.repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)
    label = Image.new("RGB", (large.shape[2], CAPTION), "white")
    draw = ImageDraw.Draw(label)
    font = ImageFont.load_default(9)
    lines = split_line(text, draw, font, large.shape[2] - 4)
    draw.multiline_text((2, 2), "\n".join(lines), fill="black", font=font, spacing=1)
    below = np.broadcast_to(np.asarray(label), (len(large), CAPTION, large.shape[2], 3))
    return np.concatenate([large, below], axis=1)


def split_line(
    text: str,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> list[str]:
    """Split a text into lines that fit a width, in pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


if __name__ == "__main__":
    try:
        sys.exit(main())
    except mvsdk.MvsdkError as exc:
        sys.exit(f"error: {exc}")
