"""Measure what the variants of an onnx bundle make, and write the figures into the model's card.

    python benchmarks/quality.py --bundle onnx.mvbundle [--model DIR] [--work runs/sticker]

The rows of a precision take the place of those that the card had of it; the others stay as
`mvsdk train` measured them. With `--prompts N` other prompts, and more of them, are measured and
printed, drawn clips first, and the card stays as it is. Drawn clips to compare to are made from the
data in --work, which is fetched when it is not there. Make the bundle with
`mvsdk export --target onnx --out onnx.mvbundle`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

import mvsdk
from mvsdk.manifest import Precision
from mvsdk_export.checkpoints import default_model_folder, open_model
from mvsdk_export.families import find_recipe
from mvsdk_export.training.sticker.measures import Generate
from mvsdk_export.training.sticker.packaging import latent_shape_of, read_quality, rewrite_card
from mvsdk_export.training.sticker.plan import StickerTrainingPlan
from mvsdk_export.training.sticker.quality import Measuring, QualityRow
from mvsdk_export.training.sticker.recipe import STICKER_TRAINING

if TYPE_CHECKING:
    from mvsdk_export.families.autoencoder import Autoencoder

STEPS = (4, 1)
"""Steps that are measured at every precision."""


def main() -> int:
    """Measure every precision of a bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", metavar="DIR", type=Path, required=True)
    parser.add_argument("--model", metavar="DIR", type=Path, help="default: the one shipped")
    parser.add_argument("--work", metavar="DIR", type=Path, default=Path("runs/sticker"))
    parser.add_argument("--prompts", metavar="N", type=int, help="print rows of N prompts instead")
    options = parser.parse_args()
    if options.prompts is not None and options.prompts < 2:
        parser.error(f"--prompts is {options.prompts}; allowed: 2 or more")
    precisions = precisions_of(options.bundle)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    recipe = STICKER_TRAINING
    plan = StickerTrainingPlan(recipe, options.work)
    folder = open_model(
        options.model or default_model_folder(recipe.name), find_recipe(recipe.name)
    )
    quality = read_quality(folder)
    list(plan.run("data"))
    clips = plan.read_clips()
    measuring = Measuring(
        clips,
        latent_shape_of(recipe),
        prompts=options.prompts or quality.prompts,
        probe_file=plan.probe_file,
    )
    rows: list[QualityRow] = []
    if options.prompts is not None:
        autoencoder = cast("Autoencoder", folder.load("vae_decoder"))
        rows.append(measuring.drawn_row(autoencoder, combinations="held_out"))
    for precision in precisions:
        generate = generate_from(options.bundle, precision)
        rows += [
            measuring.row(
                generate,
                source="student",
                precision=precision,
                combinations="held_out",
                steps=steps,
            )
            for steps in STEPS
        ]
    if options.prompts is not None:
        print("\n".join(json.dumps(row.to_json()) for row in rows))
        return 0
    rewrite_card(folder, quality.with_rows(rows))
    print(folder.path / "README.md")
    return 0


def precisions_of(bundle: Path) -> tuple[Precision, ...]:
    """Return the precisions of the onnx variants of a bundle."""
    variants = mvsdk.Bundle.open(bundle).manifest.component("transformer").variants
    return tuple(
        dict.fromkeys(variant.precision for variant in variants if variant.target == "onnx")
    )


def generate_from(bundle: Path, precision: Precision) -> Generate:
    """Return what makes clips with the variants of one precision."""
    pipeline = mvsdk.load(bundle, target="onnx", precision=precision)

    def generate(prompts: Sequence[str], seeds: Sequence[int], steps: int) -> NDArray[np.uint8]:
        return np.stack(
            [
                pipeline.generate(prompt, num_inference_steps=steps, seed=seed).frames
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
        )

    return generate


if __name__ == "__main__":
    try:
        sys.exit(main())
    except mvsdk.MvsdkError as exc:
        sys.exit(f"error: {exc}")
