"""The last stage: a model folder with its card, from the runs of a work folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from mvsdk._staging import StagingFolder, replacing
from mvsdk.errors import MvsdkError
from mvsdk_export.checkpoints import (
    INDEX_FILE,
    MODEL_CARD,
    QUALITY_FILE,
    ModelFolder,
    open_model,
    save_model_folder,
)
from mvsdk_export.distill.features import Features
from mvsdk_export.distill.measures import Frames, Networks, generate_with
from mvsdk_export.distill.model_card import CardFacts, write_model_card
from mvsdk_export.distill.options import TrainingError
from mvsdk_export.distill.quality import Measuring, ModelQuality, measure_model
from mvsdk_export.distill.recipe import TrainingRecipe, find_training
from mvsdk_export.distill.stages import (
    NEEDS,
    check_needs,
    is_finished,
)
from mvsdk_export.distill.student import TEACHER_STEPS
from mvsdk_export.distill.work_folder import (
    load_networks,
    probe_file,
    read_autoencoder_clips,
    read_clips,
    vocabulary_file,
)
from mvsdk_export.networks.vae import PATCH
from mvsdk_export.recipes import find_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A model folder that was written, and what its model card says of quality."""

    folder: ModelFolder
    quality: ModelQuality


def package_model(
    recipe: TrainingRecipe,
    work: Path,
    out: Path,
    *,
    overwrite: bool = False,
    prompts: int = 96,
    features: Callable[[Frames], Features] | None = None,
) -> Packaged:
    """Measure the averaged weights as they will be shipped, and write the model folder.

    Args:
        recipe: What was trained.
        work: Work folder with every stage finished.
        out: The model folder.
        overwrite: Replace a model folder that is there.
        prompts: Prompts behind each line of the quality table.
        features: Features of clips, for tests; None takes EfficientNet-lite0.

    Raises:
        TrainingError: If a stage is not finished, or was made with other options.
        OutputError: If `out` exists and may not be replaced, or cannot be written.
    """
    check_output(out, overwrite=overwrite)
    check_needs("package", work, recipe)
    for stage in NEEDS["package"]:
        is_finished(stage, recipe, work)  # refuses what was made with other options
    networks = load_networks(recipe, work)
    components = components_of(networks)
    for network in components.values():
        round_to_half_(network)
    quality = measure_stages(recipe, work, networks, prompts=prompts, features=features)
    model = find_recipe(recipe.name)
    folder = save_model_folder(
        out,
        model,
        components,
        scheduler=recipe.scheduler,
        vocabulary_file=vocabulary_file(work),
        model_card=write_model_card(
            CardFacts(
                recipe=recipe,
                subjects=[subject.noun for subject in recipe.chosen_subjects()],
                parameters=count_parameters(components),
                vocabulary_size=networks.text_encoder.config.vocabulary_size,
                quality=quality,
            )
        ),
        documents={QUALITY_FILE: write_quality(quality)},
        overwrite=overwrite,
    )
    return Packaged(folder=folder, quality=quality)


def measure_stages(
    recipe: TrainingRecipe,
    work: Path,
    networks: Networks,
    *,
    prompts: int,
    features: Callable[[Frames], Features] | None = None,
) -> ModelQuality:
    """Measure the shipped networks, and beside them the teacher and the student before its end."""
    clips = read_clips(recipe, work)
    _, unseen = read_autoencoder_clips(recipe, work)
    size = recipe.clips.size
    measuring = Measuring(
        clips,
        latent_shape_of(recipe),
        prompts=prompts,
        features=features,
        probe_file=probe_file(work) if features is None else None,
    )
    teacher = load_networks(recipe, work, "teacher")
    distilled = load_networks(recipe, work, "distillation")
    guided = generate_with(
        teacher, recipe.scheduler, size=size, guidance_scale=recipe.guidance_scale
    )
    return measure_model(
        measuring,
        unseen,
        networks,
        {
            "teacher": (guided, (TEACHER_STEPS,)),
            "distilled": (generate_with(distilled, recipe.scheduler, size=size), (4, 1)),
            "student": (generate_with(networks, recipe.scheduler, size=size), (4, 2, 1)),
        },
    )


def latent_shape_of(recipe: TrainingRecipe) -> tuple[int, int, int, int]:
    """Return the shape `(F, C, h, w)` of the noise of a clip."""
    side = recipe.clips.size // PATCH
    return recipe.clips.frames, recipe.denoiser.latent_channels, side, side


def rewrite_card(folder: ModelFolder, quality: ModelQuality) -> None:
    """Write other figures into a model folder, and its card from them.

    Raises:
        TrainingError: If the model is not of its recipe as it stands: the card would be wrong.
    """
    recipe = find_training(folder.recipe.name)
    config, count = folder.load_config("text_encoder"), len(recipe.chosen_subjects())
    if config.subjects != count:
        raise TrainingError(
            f"{folder.path} knows {config.subjects} subjects, its recipe has {count}; cards of "
            "other recipes are written by mvsdk train --stage package --overwrite"
        )
    components = {part.name: folder.load(part.name) for part in folder.recipe.components}
    card = write_model_card(
        CardFacts(
            recipe=recipe,
            subjects=[subject.noun for subject in recipe.chosen_subjects()],
            parameters=count_parameters(components),
            vocabulary_size=config.vocabulary_size,
            quality=quality,
        )
    )
    for name, text in ((QUALITY_FILE, write_quality(quality)), (MODEL_CARD, card)):
        with replacing(folder.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


def read_quality(folder: ModelFolder) -> ModelQuality:
    """Read the figures of a model folder.

    Raises:
        TrainingError: If it has none.
    """
    path = folder.path / QUALITY_FILE
    try:
        return ModelQuality.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; package the model again") from exc


def write_quality(quality: ModelQuality) -> str:
    """Return the text of quality.json."""
    return json.dumps(quality.to_json(), indent=1) + "\n"


def count_parameters(components: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return the number of weights of every component."""
    return {
        name: sum(value.numel() for value in network.parameters())
        for name, network in components.items()
    }


def is_packaged(recipe: TrainingRecipe, work: Path, out: Path) -> bool:
    """Say whether a folder holds the weights and the vocabulary that the work folder would give."""
    if not (out / INDEX_FILE).is_file():
        return False
    try:
        check_needs("package", work, recipe)
        components = components_of(load_networks(recipe, work))
        folder = open_model(out, find_recipe(recipe.name))
        vocabulary = folder.tokenizer_file
        if vocabulary is None or vocabulary.read_bytes() != vocabulary_file(work).read_bytes():
            return False
        return all(
            _is_same(round_to_half_(network), folder.load(name))
            for name, network in components.items()
        )
    except MvsdkError:  # another model, a damaged one, or runs that are not finished
        return False


def check_output(out: Path, *, overwrite: bool) -> None:
    """Check that a model folder may be written, before any work is done.

    Raises:
        OutputError: If `out` exists and may not be replaced.
    """
    StagingFolder(out, replaces=INDEX_FILE if overwrite else None)


def components_of(networks: Networks) -> dict[str, nn.Module]:
    """Return the networks by the names that the model's recipe gives them."""
    return {
        "text_encoder": networks.text_encoder,
        "transformer": networks.denoiser,
        "vae_decoder": networks.autoencoder,
    }


@torch.no_grad()
def round_to_half_(network: nn.Module) -> nn.Module:
    """Round every weight to what float16 holds."""
    for value in network.state_dict().values():
        value.copy_(value.half().float())
    return network


def _is_same(ours: nn.Module, theirs: nn.Module) -> bool:
    values = ours.state_dict()
    return values.keys() == theirs.state_dict().keys() and all(
        torch.equal(value, cast("torch.Tensor", values[name]))
        for name, value in theirs.state_dict().items()
    )
