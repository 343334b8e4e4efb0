"""What the reference runs on to calibrate and to verify: prompts or pictures, seeds and sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mvsdk.bundle import sha256_file
from mvsdk.errors import BundleError
from mvsdk.manifest import Manifest, NumberInput, Program
from mvsdk.tasks import TASKS
from mvsdk_export.checkpoints import MODEL_CARD, ModelFolder, default_model_folder, open_model
from mvsdk_export.checkpoints.pipeline import make_pipeline
from mvsdk_export.checkpoints.scheduler import DISCRETE_SAMPLERS, DiscreteSampler
from mvsdk_export.checkpoints.subject import ClipSize
from mvsdk_export.families import RECIPES, ComponentRecipe, Recipe, find_recipe, place_of
from mvsdk_export.families.pipeline import Clip
from mvsdk_export.jobs.job import USUAL_BYTES, Files, Job
from mvsdk_export.parity.jobs import (
    Pictures,
    ReadImages,
    RecordActivations,
    SynthesizeImages,
)
from mvsdk_export.parity.pictures import IMAGE_MODEL, PictureFiles, find_pictures

SAMPLER = "x-sampler"
"""Key of a manifest: which sampler was chosen, where the checkpoint leaves it open."""
GUIDANCE = "x-guidance"
"""Key of a manifest: guidance of the first and the last frame, which the denoiser's graph holds."""
MAX_GUIDANCE = 1000.0
"""As `guidance_scale` in docs/bundle_format.md."""

CALIBRATION_SEED = 1000
VERIFICATION_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Clips that the reference shall make."""

    folder: ModelFolder
    size: ClipSize
    guidance: tuple[float, float] | None
    steps: Sequence[int]
    default_steps: int
    prompts: Sequence[str]
    pictures: Path | None
    """Folder of the pictures that the prompts name; None if they are to be synthesized."""
    numbers: Sequence[Mapping[str, float]]
    """What else is said of each clip in turn, by inputs of the program; at least one."""
    first_seed: int
    memory_bytes: int = USUAL_BYTES
    """About what the reference holds at once."""


def calibration_of(folder: ModelFolder, clip: Clip, pictures: Path | None) -> Recording:
    """Return the clips that calibrate an export.

    Args:
        folder: The model folder.
        clip: Which clips of it are exported.
        pictures: Folder of pictures; None for those that recipes name.
    """
    files = _find_pictures(pictures)
    return Recording(
        folder=folder,
        size=ClipSize(
            num_frames=clip.num_frames,
            height=clip.height,
            width=clip.width,
            decode_frames=clip.decode_frames,
        ),
        guidance=clip.guidance,
        steps=clip.steps,
        default_steps=clip.default_steps,
        prompts=files.calibration if files else folder.recipe.calibration_prompts,
        pictures=pictures,
        numbers=_ends(make_pipeline(folder, clip).programs[0]),
        first_seed=CALIBRATION_SEED,
    )


def verification_of(
    manifest: Manifest,
    folder: ModelFolder,
    guidance: tuple[float, float] | None,
    pictures: Path | None,
) -> Recording:
    """Return the clips that a bundle is held to.

    Args:
        manifest: Of the bundle, or the outline of one.
        folder: The model folder that it is made of, cut as it is.
        guidance: Which its denoiser holds, as `read_guidance` says.
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
        size=ClipSize(
            num_frames=video.frames,
            height=video.height,
            width=video.width,
            decode_frames=decode_frames_of(manifest),
        ),
        guidance=guidance,
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


def read_sampler(manifest: Manifest) -> DiscreteSampler | None:
    """Return the sampler that was chosen for a bundle of ours; None where there was no choice.

    Raises:
        BundleError: If the manifest says something else under its key.
    """
    name = manifest.extensions.get(SAMPLER)
    if name is not None and name not in DISCRETE_SAMPLERS:
        raise BundleError(
            f"{SAMPLER} of the manifest is {json.dumps(name)[:64]}; allowed: "
            f"{', '.join(DISCRETE_SAMPLERS)}; export the bundle again"
        )
    return None if name is None else cast("DiscreteSampler", name)


def _more_motion(program: Program) -> list[Mapping[str, float]]:
    """Return what verification says of clips: what is usual, and one number at its end."""
    numbers = _numbers(program)
    name = "motion" if "motion" in numbers else next(iter(numbers), None)
    return [{}] if name is None else [{}, {name: numbers[name].maximum}]


def _numbers(program: Program) -> dict[str, NumberInput]:
    return {
        name: x
        for name, x in program.inputs.items()
        # No graph is given the scale of guidance; at its most, clips are of no use.
        if isinstance(x, NumberInput) and name != "guidance_scale"
    }


def _find_pictures(folder: Path | None) -> PictureFiles | None:
    return None if folder is None else find_pictures(folder)


def numbers_by_prompt(
    prompts: Sequence[str], numbers: Sequence[Mapping[str, float]]
) -> dict[str, Mapping[str, float]]:
    """Return what else is said of the clips of each prompt, or picture, in turn."""
    return {prompt: numbers[index % len(numbers)] for index, prompt in enumerate(prompts)}


def plan_recording(name: str, recording: Recording, *, purpose: str) -> RecordActivations:
    """Return the job that runs the reference.

    Args:
        name: Its name.
        recording: Clips to make.
        purpose: What the pictures are for that they begin with, in the name of the job that makes
            them: "to calibrate".
    """
    return RecordActivations(
        name=name,
        memory_bytes=recording.memory_bytes,
        model=files_of(recording.folder),
        size=recording.size,
        guidance=recording.guidance,
        steps=tuple(recording.steps),
        default_steps=recording.default_steps,
        prompts=tuple(recording.prompts),
        first_seed=recording.first_seed,
        numbers=tuple(dict(numbers) for numbers in recording.numbers),
        pictures=_plan_pictures(recording, purpose),
        cuts=recording.folder.cuts,
    )


def _plan_pictures(recording: Recording, purpose: str) -> Job[Pictures] | None:
    """Return the job that makes the pictures that clips begin with; None for models without."""
    if not {"picture", "clip"} & TASKS[recording.folder.recipe.task].inputs.keys():
        return None
    names, size = tuple(recording.prompts), recording.size
    if recording.pictures is None:
        return SynthesizeImages(
            name=f"synthesize pictures {purpose}",
            model=files_of(open_model(default_model_folder(IMAGE_MODEL))),
            prompts=names,
            height=size.height,
            width=size.width,
        )
    content = [sha256_file(recording.pictures / name) for name in names]
    return ReadImages(
        name=f"read pictures {purpose}",
        files=Files(places={"folder": recording.pictures}, fingerprint=digest_of(content)),
        names=names,
        height=size.height,
        width=size.width,
    )


def files_of(folder: ModelFolder) -> Files:
    """Return a model folder as jobs take it.

    All its files decide what a model computes, but the card; so does the code that its recipe
    names.
    """
    files = (*folder.files_with_hashes(), *folder.loras_with_hashes())
    hashes = [ref.sha256 for ref in files if ref.path != MODEL_CARD]
    if folder.recipe.name not in RECIPES:
        hashes.append(repr(folder.recipe))
    return Files(
        places=folder.paths,
        fingerprint=digest_of(hashes),
        modules=modules_of(folder.recipe),
        settings=folder.additions.settings,
    )


def modules_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the modules that a recipe is in and names."""
    motion = None if recipe.motion is None else recipe.motion.read
    named = [recipe.pipeline, motion, *(x for part in recipe.components for x in _references(part))]
    places = {reference.partition(":")[0] for reference in named if reference}
    return tuple(sorted(places | {place_of(recipe.name).partition(":")[0]}))


def _references(part: ComponentRecipe) -> tuple[str | None, ...]:
    return part.network, part.config, part.wrapper, part.rename_weights


def digest_of(parts: Sequence[str]) -> str:
    """Return the hash of some texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_guidance(manifest: Manifest) -> tuple[float, float] | None:
    """Return the guidance that clips of a bundle of ours are made with; None for none.

    Raises:
        BundleError: If the manifest says something else under its key.
    """
    if GUIDANCE not in manifest.extensions:
        return _guidance_of_program(manifest)
    match manifest.extensions[GUIDANCE]:
        case [int() | float() as first, int() | float() as last] if _is_scale(first, last):
            return float(first), float(last)
        case other:
            raise BundleError(
                f"{GUIDANCE} of the manifest is {json.dumps(other)[:64]}; allowed: the guidance of "
                f"the first and the last frame, 0 to {MAX_GUIDANCE:g} each, such as [1, 3]; export "
                "the bundle again"
            )


def _guidance_of_program(manifest: Manifest) -> tuple[float, float] | None:
    """Return what clips are made with by default where a program has it, and no graph."""
    if find_recipe(manifest.source.recipe).guidance != "text":
        return None
    scale = manifest.program.inputs.get("guidance_scale")
    return (scale.default, scale.default) if isinstance(scale, NumberInput) else None


def _is_scale(*values: float) -> bool:
    return all(not isinstance(x, bool) and 0 <= x <= MAX_GUIDANCE for x in values)
