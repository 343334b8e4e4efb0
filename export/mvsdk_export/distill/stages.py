"""The stages that make a model, each from the files of those before it, in one work folder.

    data           npm packages                  -> data/sprites-*.npz, data/emoji/data.json
    autoencoder    data                          -> vae/state.safetensors
    text_encoder   data, MiniLM                  -> text/vocab.json, text/state.safetensors
    latents        data, autoencoder             -> latents/bank.safetensors
    draft          data, text_encoder, latents   -> draft/state.safetensors, with text encoder
    teacher        draft, latents                -> teacher/state.safetensors, likewise
    distillation   teacher                       -> distillation/state.safetensors
    adversarial    teacher, distillation         -> adversarial/state.safetensors
    package        all of these                  -> the model folder (packaging.py)

A stage that is finished does nothing; an interrupted one goes on, `latents` from its beginning.
What was made with other options or of other subjects is never continued. Of several processes that
train together the first does alone what trains nothing, while the others wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from mvsdk.tokenizer import WordPiece
from mvsdk_export.distill.autoencoder import autoencoder_loss, fit_encoder_
from mvsdk_export.distill.bank import LatentBank, draw_bank, save_bank
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.denoiser import TextDenoiser, denoiser_loss
from mvsdk_export.distill.drafts import draft_loss, draw_pictures, fit_memory_
from mvsdk_export.distill.loop import (
    LossFunction,
    check_same_data,
    check_same_run,
    read_saved_run,
    train,
)
from mvsdk_export.distill.options import STAGES, Stage, TrainingError, TrainStep
from mvsdk_export.distill.recipe import TrainingRecipe
from mvsdk_export.distill.sources import read_emoji_names
from mvsdk_export.distill.sprites import (
    build_sprites,
    fetch_names,
)
from mvsdk_export.distill.student import Student, adversarial_loss, distillation_loss
from mvsdk_export.distill.text_encoder import (
    Distillation,
    Teacher,
    build_vocabulary,
    words_loss,
)
from mvsdk_export.distill.work_folder import (
    FOLDERS,
    bank_file,
    data_name,
    is_there,
    load_autoencoder,
    load_bank,
    load_distilled_text_encoder,
    load_student,
    load_teacher,
    load_text_denoiser,
    load_tokenizer,
    read_autoencoder_clips,
    read_clips,
    read_sprites,
    save_vocabulary,
    vocabulary_file,
)
from mvsdk_export.distill.workers import Workers
from mvsdk_export.networks.text_encoder import TextEncoder
from mvsdk_export.networks.transformer import SpatioTemporalTransformer
from mvsdk_export.networks.vae import Autoencoder

logger = logging.getLogger(__name__)

ALONE = Workers()
"""One process that trains by itself."""

_TABLE_RATES = {"text_encoder.memory.table.": 5.0}

RATES: Mapping[Stage, Mapping[str, float]] = {
    "draft": _TABLE_RATES,
    "teacher": _TABLE_RATES,
    "adversarial": {"heads.": 10.0},
}
"""Parameters that learn faster than their stage says, by so much: the memory, each entry of which
is seen in few batches; and the judging heads (SF-V: 1e-4 to the student's 1e-5)."""

NEEDS: Mapping[Stage, tuple[Stage, ...]] = {
    "data": (),
    "autoencoder": ("data",),
    "text_encoder": ("data",),
    "latents": ("data", "autoencoder"),
    **{
        stage: STAGES[:index]
        for index, stage in enumerate(STAGES)
        if index >= STAGES.index("draft")
    },
}
"""What must be finished before a stage; from the draft on, all that comes before it."""

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def run_stage(
    stage: Stage, recipe: TrainingRecipe, work: Path, *, workers: Workers = ALONE
) -> Generator[TrainStep]:
    """Do what is left to do of a stage; `package` is none of these.

    Args:
        stage: What to do.
        recipe: How.
        work: Work folder.
        workers: The processes that do it together.

    Yields:
        Progress; nothing if the stage is finished. Close the iterator to save and stop.

    Raises:
        TrainingError: If an earlier stage is not finished, or files are of another recipe.
        DataError: If the data cannot be had.
    """
    check_needs(stage, work, recipe)
    if not is_finished(stage, recipe, work) and (stage in FOLDERS or workers.is_first):
        yield from RUNNERS[stage](recipe, work, workers)
    workers.wait()


def is_finished(stage: Stage, recipe: TrainingRecipe, work: Path) -> bool:
    """Say whether nothing is left to do of a stage, `package` excepted.

    Raises:
        TrainingError: If what is there was made with other options.
    """
    if stage in FOLDERS:
        folder = work / FOLDERS[stage]
        saved = read_saved_run(folder)
        if saved is None:
            return False
        check_same_run(saved, recipe.options(stage), data_name(recipe, work), folder)
        return saved.is_finished
    if stage == "latents" and is_there(stage, recipe, work):
        load_bank(recipe, work)
    return is_there(stage, recipe, work)


def check_needs(stage: Stage, work: Path, recipe: TrainingRecipe) -> None:
    """Check that the stages before one are finished, of these subjects, with whatever options.

    Raises:
        TrainingError: With the command that finishes the first that is not.
    """
    for need in NEEDS[stage]:
        if not is_there(need, recipe, work):
            raise TrainingError(
                f"stage {stage} needs {need}, which is not finished in {work}; run "
                f"{recipe.command()} --stage {need} --work {work}"
            )
        if need in FOLDERS and (saved := read_saved_run(work / FOLDERS[need])) is not None:
            check_same_data(saved, data_name(recipe, work), work / FOLDERS[need])


def build_data(recipe: TrainingRecipe, work: Path, workers: Workers = ALONE) -> Iterator[TrainStep]:
    """Fetch and decode the sprites and the names of all emoji."""
    del workers  # one of them does it
    started = time.monotonic()
    build_sprites(
        work,
        size=recipe.sprite_size,
        source_frames=recipe.sprite_frames,
        subjects=recipe.chosen_subjects(),
    )
    fetch_names(work)
    yield TrainStep(step=1, steps=1, loss=None, elapsed_s=time.monotonic() - started)


def train_autoencoder(
    recipe: TrainingRecipe, work: Path, workers: Workers = ALONE
) -> Iterator[TrainStep]:
    """Fit the patch transform and train the decoder, on frames of all subjects but some."""
    clips, _ = read_autoencoder_clips(recipe, work)
    network = _build(lambda: Autoencoder(recipe.autoencoder), recipe.seed)
    fit_encoder_(network, clips)
    loss = autoencoder_loss(clips, _share("autoencoder", recipe, workers))
    yield from _train("autoencoder", network, loss, recipe, work, workers)


def train_text_encoder(
    recipe: TrainingRecipe,
    work: Path,
    workers: Workers = ALONE,
    *,
    teacher: Teacher | None = None,
) -> Iterator[TrainStep]:
    """Make the vocabulary and distil the text encoder on captions and names of emoji.

    Args:
        recipe: How.
        work: Work folder.
        workers: The processes that do it together.
        teacher: Whose features to learn; None for MiniLM.
    """
    clips = StickerClips(sprites=read_sprites(recipe, work), options=recipe.clips)
    names = read_emoji_names(fetch_names(work))
    phrases = [phrase for label, tags in names.values() for phrase in (label, *tags)]
    tokens = build_vocabulary(clips, phrases)
    if workers.is_first:
        save_vocabulary(tokens, vocabulary_file(work))
    config = replace(
        recipe.text_encoder, vocabulary_size=len(tokens), subjects=len(clips.sprites.subjects)
    )
    network = _build(lambda: Distillation(TextEncoder(config)), recipe.seed)
    tokenizer = WordPiece(tokens, config.max_length)
    teacher = Teacher.load() if teacher is None else teacher
    batch_size = _share("text_encoder", recipe, workers)
    loss = words_loss(teacher, tokenizer, clips, phrases, batch_size)
    yield from _train("text_encoder", network, loss, recipe, work, workers)


def build_latents(
    recipe: TrainingRecipe, work: Path, workers: Workers = ALONE
) -> Iterator[TrainStep]:
    """Draw and encode the clips that the denoiser sees."""
    del workers  # one of them does it
    started = time.monotonic()
    clips, autoencoder = read_clips(recipe, work), load_autoencoder(recipe, work)
    parts: list[LatentBank] = []
    done, count = 0, recipe.bank_clips
    for part in draw_bank(clips, autoencoder, count=count, seed=recipe.bank_seed):
        parts.append(part)
        done += len(part.scenes)
        if done == count:
            save_bank(parts, bank_file(work))
        yield TrainStep(step=done, steps=count, loss=None, elapsed_s=time.monotonic() - started)


def train_draft(
    recipe: TrainingRecipe, work: Path, workers: Workers = ALONE
) -> Iterator[TrainStep]:
    """Fill the memory, and teach the denoiser where its pictures lie."""
    bank, clips, tokenizer = _read_training_data(recipe, work)
    text_encoder = load_distilled_text_encoder(recipe, work)
    denoiser = _build(lambda: SpatioTemporalTransformer(recipe.denoiser), recipe.seed)
    assert text_encoder.memory is not None
    autoencoder = load_autoencoder(recipe, work)
    drawn = draw_pictures(clips, recipe.denoiser.num_frames, recipe.denoiser.picture_size)
    psnr_db = fit_memory_(text_encoder.memory, denoiser, clips, drawn, autoencoder)
    logger.info("principal components keep the pictures of the memory at %.1f dB", psnr_db)
    network = TextDenoiser(text_encoder, denoiser)
    batch_size = _share("draft", recipe, workers)
    loss = draft_loss(bank, clips, tokenizer, autoencoder, drawn, batch_size)
    yield from _train("draft", network, loss, recipe, work, workers)


def train_teacher(
    recipe: TrainingRecipe, work: Path, workers: Workers = ALONE
) -> Iterator[TrainStep]:
    """Train the denoiser on the bank of latents, and the memory with it."""
    bank, clips, tokenizer = _read_training_data(recipe, work)
    network = load_text_denoiser(recipe, work, "draft")
    loss = denoiser_loss(bank, clips, tokenizer, _share("teacher", recipe, workers))
    yield from _train("teacher", network, loss, recipe, work, workers)


def train_distillation(
    recipe: TrainingRecipe, work: Path, workers: Workers = ALONE
) -> Iterator[TrainStep]:
    """Distil the guided teacher into a student that is consistent along its way."""
    bank, clips, tokenizer = _read_training_data(recipe, work)
    teacher = load_teacher(recipe, work)
    network = _build(lambda: Student(recipe.denoiser), recipe.seed)
    network.denoiser.load_state_dict(teacher.denoiser.state_dict())
    loss = distillation_loss(
        bank,
        clips,
        tokenizer,
        teacher,
        scheduler=recipe.scheduler,
        guidance_scale=recipe.guidance_scale,
        batch_size=_share("distillation", recipe, workers),
    )
    yield from _train("distillation", network, loss, recipe, work, workers)


def train_adversarial(
    recipe: TrainingRecipe, work: Path, workers: Workers = ALONE
) -> Iterator[TrainStep]:
    """Finetune the distilled student against heads that judge it."""
    bank, clips, tokenizer = _read_training_data(recipe, work)
    teacher = load_teacher(recipe, work)
    network = load_student(recipe, work, "distillation")
    batch_size = _share("adversarial", recipe, workers)
    loss = adversarial_loss(
        bank, clips, tokenizer, teacher, scheduler=recipe.scheduler, batch_size=batch_size
    )
    yield from _train("adversarial", network, loss, recipe, work, workers)


RUNNERS: Mapping[Stage, Callable[[TrainingRecipe, Path, Workers], Iterator[TrainStep]]] = {
    "data": build_data,
    "autoencoder": train_autoencoder,
    "text_encoder": train_text_encoder,
    "latents": build_latents,
    "draft": train_draft,
    "teacher": train_teacher,
    "distillation": train_distillation,
    "adversarial": train_adversarial,
}


def _read_training_data(
    recipe: TrainingRecipe, work: Path
) -> tuple[LatentBank, StickerClips, WordPiece]:
    return load_bank(recipe, work), read_clips(recipe, work), load_tokenizer(recipe, work)


def _share(stage: Stage, recipe: TrainingRecipe, workers: Workers) -> int:
    """Return how many examples of each batch one process takes."""
    return workers.share(recipe.options(stage).batch_size)


def _train(
    stage: Stage,
    network: nn.Module,
    loss: LossFunction,
    recipe: TrainingRecipe,
    work: Path,
    workers: Workers,
) -> Iterator[TrainStep]:
    return train(
        network,
        loss,
        recipe.options(stage),
        work / FOLDERS[stage],
        data=data_name(recipe, work),
        workers=workers,
        rates=RATES.get(stage),
    )


def _build(network: Callable[[], NetworkT], seed: int) -> NetworkT:
    """Build a network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network()
