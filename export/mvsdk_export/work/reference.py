"""Stages around the reference: pictures to begin with, its calls, and what is held to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mvsdk.bundle import Bundle
from mvsdk.conditioning import MicroConditioning
from mvsdk.tokenizer import WordPiece
from mvsdk_export.checkpoints import open_model
from mvsdk_export.pictures import Picture, paint_pictures, read_pictures
from mvsdk_export.progress import counted
from mvsdk_export.recipes import find_recipe
from mvsdk_export.reference import Case, Reference, load_calls, save_calls
from mvsdk_export.schedule import make_sampler
from mvsdk_export.work.common import CALLS, PICTURES, load_graph, open_folder, sizes_of


def paint(
    *, painter: str, prompts: Sequence[str], height: int, width: int, output: Path
) -> dict[str, Any]:
    """Paint the pictures that prompts name."""
    pictures = paint_pictures(open_model(Path(painter)), prompts, height, width)
    return _save_pictures(pictures, output)


def read(
    *, folder: str, names: Sequence[str], height: int, width: int, output: Path
) -> dict[str, Any]:
    """Read pictures of a folder."""
    return _save_pictures(read_pictures(Path(folder), names, height, width), output)


def record(
    *,
    model: str,
    num_frames: int,
    height: int,
    width: int,
    decode_frames: int,
    guidance: Sequence[float] | None,
    steps: Sequence[int],
    default_steps: int,
    prompts: Sequence[str],
    first_seed: int,
    conditioning: Sequence[Sequence[float]],
    output: Path,
    pictures: str | None = None,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Run the float32 reference over prompts and step counts and keep every network call.

    Prompt number i gets the seed `first_seed + i`. Where a picture says what a clip shows, prompts
    are the names of the pictures, and each is made under the next of `conditioning` in turn.
    """
    folder = open_folder(model, decoder)
    sizes = sizes_of(folder, num_frames, height, width, decode_frames)
    recipe = folder.recipe
    tokenizer = folder.tokenizer_file
    reference = Reference(
        recipe,
        {
            part.name: load_graph(folder, part.name, num_frames, height, width, guidance)
            for part in recipe.components
        },
        make_sampler(folder.scheduler, steps, default_steps, conditioning=recipe.conditioning),
        WordPiece.from_file(tokenizer, sizes["L"]) if tokenizer else None,
        decode_frames=decode_frames,
    )
    shape = tuple(sizes[symbol] for symbol in ("F", "C", "h", "w"))
    shown = _load_pictures(Path(pictures)) if pictures else [None] * len(prompts)
    said = [MicroConditioning.from_added_time_ids(x) for x in conditioning]
    cases = [
        Case(
            prompt=prompt,
            seed=first_seed + index,
            num_inference_steps=count,
            picture=picture,
            conditioning=said[index % len(said)] if picture is not None else None,
        )
        for index, (prompt, picture) in enumerate(zip(prompts, shown, strict=True))
        for count in steps
    ]
    calls = [call for case in counted(cases, "clips") for call in reference.run(case, shape)]
    save_calls(calls, output / CALLS)
    return {"calls": len(calls)}


def verify(
    *, bundle: str, variant: str, prompts: Sequence[str], recorded: str, recipe: str, output: Path
) -> dict[str, Any]:
    """Hold one set of variants of a bundle to the recorded reference, for some of its prompts."""
    from mvsdk_export.verify import parse_case, verify_variant

    del output
    calls = [
        call for call in load_calls(Path(recorded) / CALLS) if parse_case(call.case)[0] in prompts
    ]
    parts = Bundle.open(Path(bundle)).manifest.components.values()
    chosen = next(x for part in parts for x in part.variants if x.id == variant)
    records = verify_variant(Path(bundle), chosen, calls, find_recipe(recipe))
    return {"records": [asdict(record) for record in records]}


def _save_pictures(pictures: Sequence[Picture], output: Path) -> dict[str, Any]:
    np.savez(output / PICTURES, *pictures)
    return {"pictures": len(pictures)}


def _load_pictures(folder: Path) -> list[Picture]:
    with np.load(folder / PICTURES, allow_pickle=False) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]
