"""Jobs around the reference: pictures to begin with, its activations, and what is held to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from mvsdk_export.checkpoints.subject import ClipSize, Subject, open_files
from mvsdk_export.families import find_recipe
from mvsdk_export.families.conditioning import cut_recipe
from mvsdk_export.families.cut import Cut
from mvsdk_export.jobs.job import Files, Inputs, Job
from mvsdk_export.quantize.activations import CALLS, Recorded, load_calls, save_calls

if TYPE_CHECKING:
    from mvsdk_export.parity.pictures import Picture

PICTURES = "pictures.npz"
_REFERENCE = ("torch", "mvsdk_export.parity.reference", "mvsdk_export.checkpoints.weights")


class Pictures(TypedDict):
    """Result of a job that makes pictures, beside the file `PICTURES`."""

    pictures: int


class Verified(TypedDict):
    """Result of a verification."""

    records: list[dict[str, Any]]
    """As `mvsdk.manifest.Verification`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthesizeImages(Job[Pictures]):
    """Make pictures of prompts, by the SDK's own text-to-video model."""

    model: Files
    """That model."""
    prompts: tuple[str, ...]
    height: int
    width: int

    PRELOAD: ClassVar[tuple[str, ...]] = (*_REFERENCE, "mvsdk_export.parity.pictures")

    def run(self, inputs: Inputs, output: Path) -> Pictures:
        """Write the pictures."""
        from mvsdk_export.parity.pictures import synthesize_images

        del inputs
        model = open_files(self.model)
        pictures = synthesize_images(model, self.prompts, self.height, self.width)
        return _save_pictures(pictures, output)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadImages(Job[Pictures]):
    """Read pictures of a folder."""

    files: Files
    """With the word `folder`."""
    names: tuple[str, ...]
    height: int
    width: int

    def run(self, inputs: Inputs, output: Path) -> Pictures:
        """Write the pictures, cropped and resized."""
        from mvsdk_export.parity.pictures import read_pictures

        del inputs
        folder = self.files.places["folder"]
        return _save_pictures(read_pictures(folder, self.names, self.height, self.width), output)


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordActivations(Job[Recorded]):
    """Run the float32 reference over prompts and step counts and keep every network call.

    Prompt number i gets the seed `first_seed + i`, and is made under the next of `numbers` in turn.
    Where a picture says what a clip shows, prompts are the names of the pictures.
    """

    model: Files
    size: ClipSize
    guidance: tuple[float, float] | None
    steps: tuple[int, ...]
    default_steps: int
    prompts: tuple[str, ...]
    first_seed: int
    numbers: tuple[Mapping[str, float], ...]
    pictures: Job[Pictures] | None
    cuts: tuple[Cut, ...] = ()
    """Where graphs are cut in two."""

    PRELOAD: ClassVar[tuple[str, ...]] = _REFERENCE

    def run(self, inputs: Inputs, output: Path) -> Recorded:
        """Write the calls."""
        from mvsdk_export.families.pipeline import Clip
        from mvsdk_export.jobs.progress import counted
        from mvsdk_export.parity.reference import Case, Reference

        folder = open_files(self.model).with_cuts(self.cuts)
        clip = Clip(
            **asdict(self.size),
            steps=self.steps,
            default_steps=self.default_steps,
            guidance=self.guidance,
        )
        networks = {
            part.name: Subject(
                component=part.name, size=self.size, guidance=self.guidance, cuts=self.cuts
            ).load(folder)
            for part in folder.recipe.components
        }
        reference = Reference.of(folder, clip, networks)
        shown: Sequence[Picture | None] = [None] * len(self.prompts)
        if self.pictures is not None:
            shown = _load_pictures(inputs[self.pictures].folder)
        cases = [
            Case(
                prompt=prompt,
                seed=self.first_seed + index,
                num_inference_steps=count,
                picture=picture,
                numbers=self.numbers[index % len(self.numbers)],
            )
            for index, (prompt, picture) in enumerate(zip(self.prompts, shown, strict=True))
            for count in self.steps
        ]
        calls = [call for case in counted(cases, "clips") for call in reference.run(case)]
        save_calls(calls, output / CALLS)
        return {"calls": len(calls)}


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifySet(Job[Verified]):
    """Hold one set of variants of a bundle to the recorded reference, for some of its prompts."""

    bundle: Files
    """With the word `bundle`."""
    chosen: str
    """Id of the set."""
    recipe: str
    """Which has the floors."""
    prompts: tuple[str, ...]
    """Those whose clips are compared."""
    numbers: Mapping[str, Mapping[str, float]]
    """Prompt -> what else was said of its clips."""
    recorded: Job[Recorded]
    pictures: Job[Pictures] | None
    cuts: tuple[Cut, ...] = ()
    """Where graphs of the bundle are cut in two."""

    PRELOAD: ClassVar[tuple[str, ...]] = ("onnxruntime", "mvsdk_export.parity.verify")

    def run(self, inputs: Inputs, output: Path) -> Verified:
        """Return the records; nothing is written."""
        from mvsdk_export.parity.verify import parse_case, verify_set

        del output
        calls = [
            call
            for call in load_calls(inputs[self.recorded].folder / CALLS)
            if parse_case(call.case)[0] in self.prompts
        ]
        shown: dict[str, Picture] = {}
        if self.pictures is not None:
            pictures = _load_pictures(inputs[self.pictures].folder)
            shown = dict(zip(self.numbers, pictures, strict=True))
        recipe = find_recipe(self.recipe)
        for cut in self.cuts:
            recipe = cut_recipe(recipe, cut)
        records = verify_set(
            self.bundle.places["bundle"],
            self.chosen,
            calls,
            recipe,
            numbers=self.numbers,
            pictures=shown,
        )
        return {"records": [asdict(record) for record in records]}


def _save_pictures(pictures: Sequence[Picture], output: Path) -> Pictures:
    import numpy as np

    np.savez(output / PICTURES, *pictures)
    return {"pictures": len(pictures)}


def _load_pictures(folder: Path) -> list[Picture]:
    import numpy as np

    with np.load(folder / PICTURES, allow_pickle=False) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]
