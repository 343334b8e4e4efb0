"""What the reference runs on to calibrate and to verify: prompts or pictures, seeds and sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvsdk.bundle import sha256_file
from mvsdk.conditioning import (
    ADDED_TIME_IDS,
    MAX_FPS,
    MAX_MOTION,
    MAX_NOISE,
    MIN_FPS,
    MicroConditioning,
)
from mvsdk.manifest import Manifest
from mvsdk_export.assemble import read_guidance
from mvsdk_export.checkpoints import MODEL_CARD, ModelFolder, default_model_folder, open_model
from mvsdk_export.pictures import PAINTER, PictureFiles, find_pictures
from mvsdk_export.request import ExportRequest
from mvsdk_export.stages import Run, Stage

CALIBRATION_SEED = 1000
VERIFICATION_SEED = 7

LEAST_CONDITIONING = MicroConditioning(fps=MIN_FPS, motion=0, noise_aug_strength=0.0)
MOST_CONDITIONING = MicroConditioning(fps=MAX_FPS, motion=MAX_MOTION, noise_aug_strength=MAX_NOISE)
"""Ends of what may be said beside a picture. Calibration sees both: beyond the range that it saw,
an option would do nothing in a quantised graph."""


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
    conditioning: Sequence[MicroConditioning]
    """What is said beside each picture in turn; empty for models that take prompts."""
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
        conditioning=[
            changed
            for usual in _conditioning(request.folder.recipe.conditioning)
            for changed in (usual, LEAST_CONDITIONING, usual, MOST_CONDITIONING)
        ],
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
    video, sampler = manifest.video, manifest.sampler
    return Recording(
        folder=folder,
        size={
            "num_frames": video.frames,
            "height": video.height,
            "width": video.width,
            "decode_frames": manifest.decode_frames,
        },
        guidance=read_guidance(manifest),
        steps=sorted(sampler.schedules),
        default_steps=sampler.default_steps,
        prompts=files.verification if files else folder.recipe.verification_prompts,
        pictures=pictures,
        conditioning=[
            changed
            for usual in _conditioning(sampler.conditioning)
            for changed in (usual, usual.changed(motion=MAX_MOTION))
        ],
        first_seed=VERIFICATION_SEED,
    )


def _conditioning(numbers: Mapping[str, Sequence[float]]) -> list[MicroConditioning]:
    """Return what is said beside a picture by default; none for models that take prompts."""
    values = numbers.get(ADDED_TIME_IDS)
    return [] if values is None else [MicroConditioning.from_added_time_ids(values)]


def _find_pictures(folder: Path | None) -> PictureFiles | None:
    return None if folder is None else find_pictures(folder)


def record(run: Run, name: str, recording: Recording) -> Stage:
    """Run the reference, after the pictures were made that it needs."""
    folder = recording.folder
    needs: dict[str, Stage] = {}
    if folder.recipe.task == "image_to_video":
        needs["pictures"] = _make_pictures(run, recording)
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
            "conditioning": [x.to_added_time_ids() for x in recording.conditioning],
        },
        needs=needs,
        paths=folder.paths,
        fingerprint=hash_of(folder),
    )


def plan_recording(name: str, folder: ModelFolder, pictures: Path | None) -> list[str]:
    """Return the names of the stages of `record`, in order."""
    shown = [_picture_stage(pictures)] if folder.recipe.task == "image_to_video" else []
    return [*shown, name]


def _make_pictures(run: Run, recording: Recording) -> Stage:
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
    """Return the hash of all files that decide what a model computes: the card does not."""
    files = folder.files_with_hashes()
    return digest_of([ref.sha256 for ref in files if ref.path != MODEL_CARD])


def digest_of(parts: Sequence[str]) -> str:
    """Return the hash of some texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
