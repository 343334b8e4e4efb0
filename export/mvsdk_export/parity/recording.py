"""What the reference runs on to calibrate and to verify: prompts or pictures, seeds and sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mvsdk.bundle import sha256_file
from mvsdk.manifest import Manifest, NumberInput, Program
from mvsdk_export.assemble import read_guidance
from mvsdk_export.checkpoints import MODEL_CARD, ModelFolder, default_model_folder, open_model
from mvsdk_export.families import RECIPES, ComponentRecipe, Recipe, find_recipe
from mvsdk_export.families.pipeline import make_pipeline
from mvsdk_export.jobs.runner import Run, Stage
from mvsdk_export.parity.pictures import PAINTER, PictureFiles, find_pictures
from mvsdk_export.planning.request import ExportRequest

CALIBRATION_SEED = 1000
VERIFICATION_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Clips that the reference shall make."""

    folder: ModelFolder
    size: Mapping[str, int]
    guidance: tuple[float, float] | None
    steps: Sequence[int]
    default_steps: int
    prompts: Sequence[str]
    pictures: Path | None
    """Folder of the pictures that the prompts name; None if they are to be painted."""
    numbers: Sequence[Mapping[str, float]]
    """What else is said of each clip in turn, by inputs of the program; at least one."""
    first_seed: int


def calibration_of(request: ExportRequest) -> Recording:
    """Return the clips that calibrate an export."""
    files = _find_pictures(request.pictures)
    return Recording(
        folder=request.folder,
        size=request.size,
        guidance=request.folded_guidance,
        steps=request.steps,
        default_steps=request.default_steps,
        prompts=files.calibration if files else request.folder.recipe.calibration_prompts,
        pictures=request.pictures,
        numbers=_ends(make_pipeline(request.folder, request.clip).programs[0]),
        first_seed=CALIBRATION_SEED,
    )


def verification_of(manifest: Manifest, folder: ModelFolder, pictures: Path | None) -> Recording:
    """Return the clips that a bundle is held to.

    Args:
        manifest: Of the bundle.
        folder: The model folder that it was made of.
        pictures: Folder of pictures; None for those that recipes name.
    """
    files = _find_pictures(pictures)
    program = manifest.program
    video = program.video
    samplers = [manifest.samplers[name] for name in program.samplers()]
    sampler = next((item for item in samplers if item.adjustable), None)
    # Where no number of steps can be chosen, that of a case is but part of its name.
    fixed = samplers[0].default_steps if samplers else 1
    return Recording(
        folder=folder,
        size={
            "num_frames": video.frames,
            "height": video.height,
            "width": video.width,
            "decode_frames": decode_frames_of(manifest),
        },
        guidance=read_guidance(manifest),
        steps=[fixed] if sampler is None else sorted(sampler.schedules),
        default_steps=fixed if sampler is None else sampler.default_steps,
        prompts=files.verification if files else folder.recipe.verification_prompts,
        pictures=pictures,
        numbers=_more_motion(program),
        first_seed=VERIFICATION_SEED,
    )


def decode_frames_of(manifest: Manifest) -> int:
    """Return how many frames the decoder makes at once: the size f of its recipe's shapes."""
    for part in find_recipe(manifest.source.recipe).components:
        sizes = {tensor.name: tensor.shape for tensor in manifest.components[part.name].inputs}
        for tensor in part.inputs:
            if "f" in tensor.shape:
                return sizes[tensor.name][tensor.shape.index("f")]
    return manifest.program.video.frames


def _ends(program: Program) -> list[Mapping[str, float]]:
    """Return what calibration says of clips: what is usual, and both ends of every number.

    Beyond the range that it saw, a number would do nothing in a quantised graph.
    """
    numbers = _numbers(program)
    if not numbers:
        return [{}]
    least = {name: item.minimum for name, item in numbers.items()}
    most = {name: item.maximum for name, item in numbers.items()}
    return [{}, least, {}, most]


def _more_motion(program: Program) -> list[Mapping[str, float]]:
    """Return what verification says of clips: what is usual, and one number at its end."""
    numbers = _numbers(program)
    name = "motion" if "motion" in numbers else next(iter(numbers), None)
    return [{}] if name is None else [{}, {name: numbers[name].maximum}]


def _numbers(program: Program) -> dict[str, NumberInput]:
    return {name: x for name, x in program.inputs.items() if isinstance(x, NumberInput)}


def _find_pictures(folder: Path | None) -> PictureFiles | None:
    return None if folder is None else find_pictures(folder)


def numbers_by_prompt(recording: Recording) -> dict[str, Mapping[str, float]]:
    """Return what else is said of the clips of each prompt, or picture."""
    count = len(recording.numbers)
    return {
        prompt: recording.numbers[index % count] for index, prompt in enumerate(recording.prompts)
    }


def record(run: Run, name: str, recording: Recording, pictures: Stage | None) -> Stage:
    """Run the reference.

    Args:
        run: Runs the stage.
        name: Its name.
        recording: Clips to make.
        pictures: What `make_pictures` returned.
    """
    folder = recording.folder
    return run(
        name,
        "record",
        arguments={
            **recording.size,
            "guidance": recording.guidance,
            "steps": list(recording.steps),
            "default_steps": recording.default_steps,
            "prompts": list(recording.prompts),
            "first_seed": recording.first_seed,
            "numbers": [dict(numbers) for numbers in recording.numbers],
        },
        needs={} if pictures is None else {"pictures": pictures},
        paths=folder.paths,
        fingerprint=hash_of(folder),
    )


def plan_recording(name: str, folder: ModelFolder, pictures: Path | None) -> list[str]:
    """Return the names of the stages of `record`, in order."""
    shown = [_picture_stage(pictures)] if folder.recipe.task != "text_to_video" else []
    return [*shown, name]


def make_pictures(run: Run, recording: Recording) -> Stage | None:
    """Read or paint the pictures that clips begin with; None for models that take none."""
    if recording.folder.recipe.task == "text_to_video":
        return None
    names = list(recording.prompts)
    size = {side: recording.size[side] for side in ("height", "width")}
    if recording.pictures is not None:
        content = [sha256_file(recording.pictures / name) for name in names]
        return run(
            _picture_stage(recording.pictures),
            "read",
            arguments={"names": names, **size},
            paths={"folder": recording.pictures},
            fingerprint=digest_of(content),
        )
    painter = open_model(default_model_folder(PAINTER))
    return run(
        _picture_stage(None),
        "paint",
        arguments={"prompts": names, **size},
        paths={"painter": painter.path},
        fingerprint=hash_of(painter),
    )


def _picture_stage(pictures: Path | None) -> str:
    return "paint pictures" if pictures is None else "read pictures"


def hash_of(folder: ModelFolder) -> str:
    """Return the hash of all files that decide what a model computes: the card does not.

    The code of another package's recipe is among them; that of this package is in every stage.
    """
    files = folder.files_with_hashes()
    hashes = [ref.sha256 for ref in files if ref.path != MODEL_CARD]
    if folder.recipe.name not in RECIPES:
        hashes += [repr(folder.recipe), *map(_hash_source, _packages_of(folder.recipe))]
    return digest_of(hashes)


def _packages_of(recipe: Recipe) -> list[str]:
    """Return the names of the packages, other than this one, whose code a recipe names."""
    named = [recipe.pipeline, *(x for part in recipe.components for x in _references(part))]
    found = {reference.split(":")[0].split(".")[0] for reference in named if reference}
    return sorted(found - {__name__.split(".")[0]})


def _references(part: ComponentRecipe) -> tuple[str | None, ...]:
    return part.network, part.config, part.wrapper


@cache
def _hash_source(package: str) -> str:
    """Return the hash of the source of a package or module; it is not imported."""
    spec = find_spec(package)
    digest = hashlib.sha256()
    if spec is not None and spec.submodule_search_locations:
        for root in map(Path, spec.submodule_search_locations):
            for path in sorted(root.rglob("*.py")):
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(path.read_bytes())
    elif spec is not None and spec.origin is not None:
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()


def digest_of(parts: Sequence[str]) -> str:
    """Return the hash of some texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
