"""The work folder of a training: where the stages leave what they make, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mvsdk._staging import replacing
from mvsdk.tokenizer import WordPiece
from mvsdk_export.distill.bank import LatentBank, check_bank, read_bank
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.denoiser import TextDenoiser
from mvsdk_export.distill.loop import load_average_, read_saved_run
from mvsdk_export.distill.measures import Networks
from mvsdk_export.distill.options import Stage, TrainingError
from mvsdk_export.distill.recipe import TrainingRecipe
from mvsdk_export.distill.sprites import Sprites, has_names, load_sprites, sprite_cache
from mvsdk_export.distill.student import Student
from mvsdk_export.distill.text_encoder import Distillation
from mvsdk_export.networks.text_encoder import TextEncoder
from mvsdk_export.networks.transformer import SpatioTemporalTransformer
from mvsdk_export.networks.vae import Autoencoder

FOLDERS: Mapping[Stage, str] = {
    "autoencoder": "vae",
    "text_encoder": "text",
    "draft": "draft",
    "teacher": "teacher",
    "distillation": "distillation",
    "adversarial": "adversarial",
}
"""Where the state of a network lies in the work folder."""

UNSEEN_EVERY = 20
"""One subject in so many is kept from the autoencoder, to measure it on."""


def is_there(stage: Stage, recipe: TrainingRecipe, work: Path) -> bool:
    """Say whether the files of a stage are complete, whatever they were made with."""
    if stage in FOLDERS:
        saved = read_saved_run(work / FOLDERS[stage])
        return saved is not None and saved.is_finished
    if stage == "latents":
        return bank_file(work).is_file()
    return _sprite_file(recipe, work).is_file() and has_names(work)


def data_name(recipe: TrainingRecipe, work: Path) -> str:
    """Return what a state says that it was trained on: how many subjects, and their digest."""
    count, digest = len(recipe.chosen_subjects()), _sprite_file(recipe, work).stem
    return f"{count} subjects ({digest})"


def vocabulary_file(work: Path) -> Path:
    """Return where the vocabulary lies."""
    return work / FOLDERS["text_encoder"] / "vocab.json"


def bank_file(work: Path) -> Path:
    """Return where the encoded clips lie."""
    return work / "latents" / "bank.safetensors"


def probe_file(work: Path) -> Path:
    """Return where the probe of subjects lies, by which clips are measured."""
    return work / "probe.safetensors"


def read_sprites(recipe: TrainingRecipe, work: Path) -> Sprites:
    """Read the sprites of every subject."""
    return load_sprites(_sprite_file(recipe, work))


def read_clips(recipe: TrainingRecipe, work: Path) -> StickerClips:
    """Return the clips of all subjects, drawn as the denoiser sees them."""
    return StickerClips(sprites=read_sprites(recipe, work), options=recipe.clips)


def read_autoencoder_clips(recipe: TrainingRecipe, work: Path) -> tuple[StickerClips, StickerClips]:
    """Return clips of the subjects that the autoencoder learns from, and of those it never sees."""
    sprites = read_sprites(recipe, work)
    ids = [subject.id for subject in sprites.subjects]
    unseen = ids[::-UNSEEN_EVERY] if len(ids) > 1 else ids
    seen = [x for x in ids if x not in unseen] or ids

    def draw(chosen: list[str]) -> StickerClips:
        return StickerClips(sprites=sprites.select(chosen), options=recipe.autoencoder_clips)

    return draw(seen), draw(unseen)


def save_vocabulary(tokens: list[str], path: Path) -> None:
    """Write the vocabulary, or check that it is the one that is there.

    Raises:
        TrainingError: If another one is there.
    """
    if path.exists():
        if _read_tokens(path) != tokens:
            raise TrainingError(
                f"{path} holds other words than the data; choose another work folder, or remove "
                f"{path.parent} to train the text encoder anew"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"kind": "wordpiece", "tokens": tokens}), encoding="utf-8")


def load_bank(recipe: TrainingRecipe, work: Path) -> LatentBank:
    """Read the encoded clips after checking that they are of this recipe.

    Raises:
        TrainingError: If they are of other subjects, of another seed or autoencoder.
    """
    bank = read_bank(bank_file(work))
    clips, autoencoder = read_clips(recipe, work), load_autoencoder(recipe, work)
    check_bank(bank, clips, autoencoder, count=recipe.bank_clips, seed=recipe.bank_seed)
    return bank


def load_autoencoder(recipe: TrainingRecipe, work: Path) -> Autoencoder:
    """Load the averaged weights of a run, finished or not."""
    network = Autoencoder(recipe.autoencoder)
    network.encoder.requires_grad_(False)
    load_average_(network, work / FOLDERS["autoencoder"])
    return network


def load_tokenizer(recipe: TrainingRecipe, work: Path) -> WordPiece:
    """Return the tokenizer of the vocabulary that was made from the data."""
    return WordPiece(_read_tokens(vocabulary_file(work)), recipe.text_encoder.max_length)


def load_distilled_text_encoder(recipe: TrainingRecipe, work: Path) -> TextEncoder:
    """Load the text encoder as the denoiser's training begins with it."""
    network = Distillation(_text_encoder(recipe, work))
    load_average_(network, work / FOLDERS["text_encoder"])
    return network.student


def load_text_denoiser(recipe: TrainingRecipe, work: Path, stage: Stage) -> TextDenoiser:
    """Load the averaged weights of text encoder and denoiser after "draft" or "teacher"."""
    network = TextDenoiser(_text_encoder(recipe, work), SpatioTemporalTransformer(recipe.denoiser))
    load_average_(network, work / FOLDERS[stage])
    return network


def load_teacher(recipe: TrainingRecipe, work: Path) -> TextDenoiser:
    """Load the averaged weights of the teacher and its text encoder, frozen."""
    return load_text_denoiser(recipe, work, "teacher").requires_grad_(False)


def load_student(recipe: TrainingRecipe, work: Path, stage: Stage) -> Student:
    """Load the averaged weights of a student, after its distillation or its finetuning."""
    network = Student(recipe.denoiser)
    load_average_(network, work / FOLDERS[stage])
    return network


def load_networks(recipe: TrainingRecipe, work: Path, stage: Stage = "adversarial") -> Networks:
    """Load the averaged weights that make a model, of runs finished or not.

    Args:
        recipe: What was trained.
        work: Work folder.
        stage: Whose denoiser: "teacher", "distillation" or "adversarial".
    """
    teacher = load_teacher(recipe, work)
    denoiser = teacher.denoiser
    if stage != "teacher":
        denoiser = load_student(recipe, work, stage).denoiser
    return Networks(
        tokenizer=load_tokenizer(recipe, work),
        text_encoder=teacher.text_encoder,
        denoiser=denoiser,
        autoencoder=load_autoencoder(recipe, work),
    )


def _sprite_file(recipe: TrainingRecipe, work: Path) -> Path:
    return sprite_cache(
        work,
        size=recipe.sprite_size,
        source_frames=recipe.sprite_frames,
        subjects=recipe.chosen_subjects(),
    )


def _text_encoder(recipe: TrainingRecipe, work: Path) -> TextEncoder:
    config = replace(
        recipe.text_encoder,
        vocabulary_size=len(_read_tokens(vocabulary_file(work))),
        subjects=len(recipe.chosen_subjects()),
    )
    return TextEncoder(config)


def _read_tokens(path: Path) -> list[str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["tokens"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise TrainingError(
            f"cannot read the vocabulary {path}: {exc}; run mvsdk train --stage text_encoder"
        ) from exc
