"""Stages around the reference: pictures to begin with, its calls, and what is held to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mvsdk_export.checkpoints import open_model
from mvsdk_export.families import find_recipe
from mvsdk_export.families.pipeline import Clip
from mvsdk_export.jobs.progress import counted
from mvsdk_export.parity.pictures import Picture, paint_pictures, read_pictures
from mvsdk_export.parity.reference import Case, Reference, load_calls, save_calls
from mvsdk_export.targets.subject import CALLS, PICTURES, load_graph, open_folder


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
    numbers: Sequence[Mapping[str, float]],
    output: Path,
    pictures: str | None = None,
    decoder: str | None = None,
) -> dict[str, Any]:
    """Run the float32 reference over prompts and step counts and keep every network call.

    Prompt number i gets the seed `first_seed + i`, and is made under the next of `numbers` in turn.
    Where a picture says what a clip shows, prompts are the names of the pictures.
    """
    folder = open_folder(model, decoder)
    clip = Clip(
        num_frames=num_frames,
        height=height,
        width=width,
        decode_frames=decode_frames,
        steps=tuple(steps),
        default_steps=default_steps,
    )
    networks = {
        part.name: load_graph(folder, part.name, num_frames, height, width, guidance)
        for part in folder.recipe.components
    }
    reference = Reference.of(folder, clip, networks)
    shown = _load_pictures(Path(pictures)) if pictures else [None] * len(prompts)
    cases = [
        Case(
            prompt=prompt,
            seed=first_seed + index,
            num_inference_steps=count,
            picture=picture,
            numbers=numbers[index % len(numbers)],
        )
        for index, (prompt, picture) in enumerate(zip(prompts, shown, strict=True))
        for count in steps
    ]
    calls = [call for case in counted(cases, "clips") for call in reference.run(case)]
    save_calls(calls, output / CALLS)
    return {"calls": len(calls)}


def verify(
    *,
    bundle: str,
    chosen: str,
    prompts: Sequence[str],
    numbers: Mapping[str, Mapping[str, float]],
    recorded: str,
    recipe: str,
    output: Path,
    pictures: str | None = None,
) -> dict[str, Any]:
    """Hold one set of variants of a bundle to the recorded reference, for some of its prompts.

    Args:
        bundle: Path.
        chosen: Id of the set.
        prompts: Those whose clips are compared.
        numbers: Prompt -> what else was said of its clips.
        recorded: What `record` wrote.
        recipe: Name of the recipe, which has the floors.
        output: Nothing is written.
        pictures: What `record` got.
    """
    from mvsdk_export.parity.verify import parse_case, verify_set

    del output
    calls = [
        call for call in load_calls(Path(recorded) / CALLS) if parse_case(call.case)[0] in prompts
    ]
    shown = dict(zip(numbers, _load_pictures(Path(pictures)), strict=True)) if pictures else {}
    records = verify_set(
        Path(bundle), chosen, calls, find_recipe(recipe), numbers=numbers, pictures=shown
    )
    return {"records": [asdict(record) for record in records]}


def _save_pictures(pictures: Sequence[Picture], output: Path) -> dict[str, Any]:
    np.savez(output / PICTURES, *pictures)
    return {"pictures": len(pictures)}


def _load_pictures(folder: Path) -> list[Picture]:
    with np.load(folder / PICTURES, allow_pickle=False) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]
