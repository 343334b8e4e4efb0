"""The stages that make the image-to-video model, each from the files of those before it.

    data        npm packages              -> data/sprites-*.npz
    latents     data, sticker's vae       -> animator/latents/bank.safetensors
    image_encoder  latents                -> animator/image_encoder/state.safetensors
    base        image_encoder, latents    -> animator/base/state.safetensors, with image encoder
    one_step    base                      folded, finetuned to one step against the frozen base
    frames      one_step                  half the frames inside, finetuned likewise
    importance  frames                    which temporal blocks matter -> importance.json
    prune       importance                only those stay, finetuned likewise
    funnels     prune                     narrow self-attention as adaptors, finetuned likewise
    package     all of these              -> the model folder (packaging.py)

Every stage from `one_step` on leaves animator/STAGE/state.safetensors: a denoiser and the heads
that judged it, with which the next one goes on. A stage that is finished does nothing; an
interrupted one goes on, `latents` from its beginning. What was made with other options or of other
subjects is never continued.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from mvsdk_export.distill.animator.bank import ClipBank, draw_clip_bank, save_clip_bank
from mvsdk_export.distill.animator.losses import base_loss, names_loss, one_step_loss
from mvsdk_export.distill.animator.networks import AnimatorBase, PictureNames
from mvsdk_export.distill.animator.options import ANIMATOR_STAGES, CHAIN, AnimatorStage
from mvsdk_export.distill.animator.recipe import AnimatorTraining
from mvsdk_export.distill.animator.work_folder import (
    FOLDERS,
    bank_file,
    begin_unet,
    build_student,
    data_name,
    importance_file,
    is_there,
    load_autoencoder,
    load_base,
    load_clip_bank,
    load_named_encoder,
    load_student,
    read_clips,
)
from mvsdk_export.distill.loop import (
    LossFunction,
    check_same_data,
    check_same_run,
    read_saved_run,
    train,
)
from mvsdk_export.distill.options import TrainingError, TrainStep
from mvsdk_export.distill.sprites import build_sprites
from mvsdk_export.distill.workers import Workers

ALONE = Workers()
"""One process that trains by itself."""

RATES: Mapping[str, float] = {"image_encoder.": 0.2, "heads.": 5.0, "importance.": 100.0}
"""Parameters that learn faster or slower than their stage says, by so much: the image encoder, for
it knows what pictures show by then; the judging heads; and the scores of temporal blocks, which
have to order themselves within one stage."""

MATRICES = ("unet.",)
"""What Muon trains of a network, where the options have a rate for it: it took 400 steps where
AdamW takes about 700."""

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def needs_of(stage: AnimatorStage) -> tuple[AnimatorStage, ...]:
    """Return what must be finished before a stage: all that comes before it."""
    return ANIMATOR_STAGES[: ANIMATOR_STAGES.index(stage)]


def run_stage(
    stage: AnimatorStage, recipe: AnimatorTraining, work: Path, *, workers: Workers = ALONE
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
    if stage == "importance" and workers.is_first:
        save_importance(recipe, work)
    workers.wait()


def is_finished(stage: AnimatorStage, recipe: AnimatorTraining, work: Path) -> bool:
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
        load_clip_bank(recipe, work)
    return is_there(stage, recipe, work)


def check_needs(stage: AnimatorStage, work: Path, recipe: AnimatorTraining) -> None:
    """Check that the stages before one are finished, of these subjects, with whatever options.

    Raises:
        TrainingError: With the command that finishes the first that is not.
    """
    for need in needs_of(stage):
        if not is_there(need, recipe, work):
            raise TrainingError(
                f"stage {stage} needs {need}, which is not finished in {work}; run "
                f"{recipe.command()} --stage {need} --work {work}"
            )
        if need in FOLDERS and (saved := read_saved_run(work / FOLDERS[need])) is not None:
            check_same_data(saved, data_name(recipe, work), work / FOLDERS[need])


def build_data(recipe: AnimatorTraining, work: Path, workers: Workers) -> Iterator[TrainStep]:
    """Fetch and decode the sprites."""
    del workers  # one of them does it
    started = time.monotonic()
    build_sprites(
        work,
        size=recipe.sprite_size,
        source_frames=recipe.sprite_frames,
        subjects=recipe.chosen_subjects(),
    )
    yield TrainStep(step=1, steps=1, loss=None, elapsed_s=time.monotonic() - started)


def build_latents(recipe: AnimatorTraining, work: Path, workers: Workers) -> Iterator[TrainStep]:
    """Draw and encode the clips that are seen."""
    del workers  # one of them does it
    started = time.monotonic()
    clips, autoencoder = read_clips(recipe, work), load_autoencoder(recipe)
    parts: list[ClipBank] = []
    done, count = 0, recipe.bank_clips
    for part in draw_clip_bank(clips, autoencoder, count=count, seed=recipe.bank_seed):
        parts.append(part)
        done += len(part.starts)
        if done == count:
            save_clip_bank(parts, bank_file(work))
        yield TrainStep(step=done, steps=count, loss=None, elapsed_s=time.monotonic() - started)


def train_image_encoder(
    recipe: AnimatorTraining, work: Path, workers: Workers
) -> Iterator[TrainStep]:
    """Teach the encoder of pictures what they show."""
    bank, clips = load_clip_bank(recipe, work), read_clips(recipe, work)
    subjects = len(clips.sprites.subjects)
    network = _build(lambda: PictureNames(recipe.image_encoder, subjects), recipe.seed)
    loss = names_loss(bank, clips, workers.share(recipe.options("image_encoder").batch_size))
    yield from _train("image_encoder", network, loss, recipe, work, workers)


def train_base(recipe: AnimatorTraining, work: Path, workers: Workers) -> Iterator[TrainStep]:
    """Train the uncompressed denoiser and the encoder of its picture."""
    bank = load_clip_bank(recipe, work)
    network = _build(lambda: AnimatorBase(recipe.unet, recipe.image_encoder), recipe.seed)
    encoder = load_named_encoder(recipe, work)
    network.image_encoder.load_state_dict(encoder.state_dict())
    batch_size = workers.share(recipe.options("base").batch_size)
    loss = base_loss(bank, load_autoencoder(recipe), batch_size)
    yield from _train("base", network, loss, recipe, work, workers)


def finetune(stage: AnimatorStage) -> Callable[..., Iterator[TrainStep]]:
    """Return what does a stage of the chain: compress by a step, and finetune to one evaluation."""

    def run(recipe: AnimatorTraining, work: Path, workers: Workers) -> Iterator[TrainStep]:
        bank, base = load_clip_bank(recipe, work), load_base(recipe, work)
        unet = begin_unet(stage, recipe, work)
        network = _build(lambda: build_student(stage, unet, recipe), recipe.seed)
        if stage != CHAIN[0]:
            before = load_student(CHAIN[CHAIN.index(stage) - 1], recipe, work)
            network.heads.load_state_dict(before.heads.state_dict())
        loss = one_step_loss(
            bank,
            load_autoencoder(recipe),
            base,
            scheduler=recipe.scheduler,
            batch_size=workers.share(recipe.options(stage).batch_size),
        )
        yield from _train(stage, network, loss, recipe, work, workers)

    return run


def save_importance(recipe: AnimatorTraining, work: Path) -> None:
    """Write what was learned of temporal blocks, for pruning."""
    importance = load_student("importance", recipe, work).importance
    assert importance is not None
    importance.result(recipe.name).save(importance_file(work))


RUNNERS: Mapping[
    AnimatorStage, Callable[[AnimatorTraining, Path, Workers], Iterator[TrainStep]]
] = {
    "data": build_data,
    "latents": build_latents,
    "image_encoder": train_image_encoder,
    "base": train_base,
    **{stage: finetune(stage) for stage in CHAIN},
}


def _train(
    stage: AnimatorStage,
    network: nn.Module,
    loss: LossFunction,
    recipe: AnimatorTraining,
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
        rates=None if stage == "image_encoder" else RATES,
        matrices=MATRICES,
    )


def _build(network: Callable[[], NetworkT], seed: int) -> NetworkT:
    """Build a network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network()
