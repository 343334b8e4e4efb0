"""The last stage of the text-to-video model: its folder with its card, from a work folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from mvsdk._staging import replacing
from mvsdk_export.checkpoints import (
    MODEL_CARD,
    QUALITY_FILE,
    ModelFolder,
    save_model_folder,
)
from mvsdk_export.checkpoints.folder import TOKENIZER_FILE
from mvsdk_export.families import find_recipe
from mvsdk_export.families.autoencoder import PATCH
from mvsdk_export.training import packaging
from mvsdk_export.training.features import Features
from mvsdk_export.training.measures import Frames
from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.packaging import (
    Packaged,
    check_output,
    check_plan,
    count_parameters,
    round_to_half_,
    write_quality,
)
from mvsdk_export.training.sticker.measures import Networks, generate_with
from mvsdk_export.training.sticker.model_card import CardFacts, write_model_card
from mvsdk_export.training.sticker.plan import StickerTrainingPlan
from mvsdk_export.training.sticker.quality import Measuring, ModelQuality, measure_model
from mvsdk_export.training.sticker.recipe import STICKER_TRAINING, StickerTraining
from mvsdk_export.training.sticker.student import TEACHER_STEPS


def package(
    plan: StickerTrainingPlan,
    out: Path,
    *,
    overwrite: bool = False,
    prompts: int = 96,
    features: Callable[[Frames], Features] | None = None,
) -> Packaged[ModelQuality]:
    """Measure the averaged weights as they will be shipped, and write the model folder.

    Args:
        plan: What was trained, every stage finished.
        out: The model folder.
        overwrite: Replace a model folder that is there.
        prompts: Prompts behind each line of the quality table.
        features: Features of clips, for tests; None takes EfficientNet-lite0.

    Raises:
        TrainingError: If a stage is not finished, or was made with other options.
        OutputError: If `out` exists and may not be replaced, or cannot be written.
    """
    check_output(out, overwrite=overwrite)
    check_plan(plan)
    recipe, networks = plan.recipe, plan.load_networks()
    components = components_of(networks)
    for network in components.values():
        round_to_half_(network)
    quality = measure_stages(plan, networks, prompts=prompts, features=features)
    folder = save_model_folder(
        out,
        find_recipe(recipe.name),
        components,
        scheduler=recipe.scheduler,
        vocabulary_file=plan.vocabulary_file,
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
    plan: StickerTrainingPlan,
    networks: Networks,
    *,
    prompts: int,
    features: Callable[[Frames], Features] | None = None,
) -> ModelQuality:
    """Measure the shipped networks, and beside them the teacher and the student before its end."""
    recipe = plan.recipe
    _, unseen = plan.read_autoencoder_clips()
    size = recipe.clips.size
    measuring = Measuring(
        plan.read_clips(),
        latent_shape_of(recipe),
        prompts=prompts,
        features=features,
        probe_file=plan.probe_file if features is None else None,
    )
    teacher, distilled = plan.load_networks("teacher"), plan.load_networks("distillation")
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


def latent_shape_of(recipe: StickerTraining) -> tuple[int, int, int, int]:
    """Return the shape `(F, C, h, w)` of the noise of a clip."""
    side = recipe.clips.size // PATCH
    return recipe.clips.frames, recipe.denoiser.latent_channels, side, side


def rewrite_card(folder: ModelFolder, quality: ModelQuality) -> None:
    """Write other figures into a model folder, and its card from them.

    Raises:
        TrainingError: If the model is not of its recipe as it stands: the card would be wrong.
    """
    recipe = STICKER_TRAINING
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
    return packaging.read_quality(folder, ModelQuality.from_json)


def is_packaged(plan: StickerTrainingPlan, out: Path) -> bool:
    """Say whether a folder holds the weights and the vocabulary that the work folder would give."""

    def load() -> dict[str, nn.Module]:
        components = components_of(plan.load_networks())
        return {name: round_to_half_(network) for name, network in components.items()}

    ours, theirs = plan.vocabulary_file, out / TOKENIZER_FILE
    if not (ours.is_file() and theirs.is_file() and ours.read_bytes() == theirs.read_bytes()):
        return False
    return packaging.is_packaged(plan, out, load)


def components_of(networks: Networks) -> dict[str, nn.Module]:
    """Return the networks by the names that the model's recipe gives them."""
    return {
        "text_encoder": networks.text_encoder,
        "transformer": networks.denoiser,
        "vae_decoder": networks.autoencoder,
    }
