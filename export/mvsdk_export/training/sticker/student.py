"""The few-step student: the teacher's denoiser, distilled and then judged.

The text encoder is the teacher's and stays as it is. Both trainings start from noise that decides
what the caption leaves open, as the teacher's did (`choices.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mvsdk.schedules import flow_sigmas
from mvsdk.tokenizers import WordPiece
from mvsdk_export.checkpoints.scheduler import FlowScheduler
from mvsdk_export.families.sticker.transformer import SpatioTemporalTransformer, TransformerConfig
from mvsdk_export.training.data.clips import StickerClips
from mvsdk_export.training.loop import LossFunction
from mvsdk_export.training.methods.adversarial import Backbone, Heads, draw_times, judge
from mvsdk_export.training.methods.consistency import (
    Predict,
    consistency_loss,
    guide,
    pseudo_huber,
    walk,
)
from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.sticker.bank import LatentBank
from mvsdk_export.training.sticker.denoiser import TextDenoiser, draw_batch, no_caption

TEACHER_STEPS = 16
"""Steps of the grid on which the teacher leads the student."""

ANCHOR_WEIGHT = 1.0
"""Weight of the distance to clips, on the student's own way, beside that to its own predictions on
the teacher's way. Alone, the latter may drift: its targets are the student's."""

STUDENT_STEPS = 4
"""Most steps of the student: the levels from which it is judged."""


class Student(nn.Module):
    """A denoiser in training, with the heads that judge it; distillation leaves them alone."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.denoiser = SpatioTemporalTransformer(config)
        self.heads = Heads([config.width] * config.layers, config.context_dim)


def predict_with(denoiser: SpatioTemporalTransformer, context: Tensor) -> Predict:
    """Return the predictions of a denoiser for text features `(B, S, D)`."""

    def predict(x: Tensor, times: Tensor) -> Tensor:
        return denoiser(x.flatten(0, 1), times, context).reshape(x.shape)

    return predict


def look_with(denoiser: SpatioTemporalTransformer, context: Tensor) -> Backbone:
    """Return what the layers of a denoiser make of noisy latents `(B, F, C, h, w)`."""

    def look(x: Tensor, times: Tensor) -> Sequence[Tensor]:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            b, _, size = output.shape
            seen.append(output.reshape(b, x.shape[1], -1, size).transpose(2, 3))

        hooks = [layer.register_forward_hook(keep) for layer in denoiser.layers]
        try:
            denoiser(x.flatten(0, 1), times, context)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    return look


def distillation_loss(
    bank: LatentBank,
    clips: StickerClips,
    tokenizer: WordPiece,
    teacher: TextDenoiser,
    *,
    scheduler: FlowScheduler,
    guidance_scale: float,
    batch_size: int,
) -> LossFunction:
    """Return the loss of a `Student` that learns to be consistent along the guided teacher's way.

    Half of a batch is for that. The other half lies on the student's own way, as it will when clips
    are generated: what it passed on from level to level there is its own doing, and from each level
    it has to predict the clip.

    Args:
        bank: Clips.
        clips: Write their captions.
        tokenizer: Encodes those.
        teacher: Trained, frozen.
        scheduler: How teacher and student are sampled.
        guidance_scale: What is distilled in; 1 for none.
        batch_size: Clips of a step.

    Raises:
        TrainingError: If there are not two clips.

    Reference:
        Luo et al. 2023, arXiv:2310.04378; Kohler et al. 2024, arXiv:2405.05224 (the student's own
        way in training).
    """
    if batch_size < 2:
        raise TrainingError(f"cannot halve a batch of {batch_size}; train with fewer processes")
    levels = torch.from_numpy(flow_sigmas(TEACHER_STEPS, shift=scheduler.shift))
    own = levels_of(scheduler)
    half = batch_size // 2

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, Student)
        batch = draw_batch(bank, clips, tokenizer, batch_size, rng, noise)
        # Many steps start where every trajectory of few steps does.
        step = rng.integers(TEACHER_STEPS, size=batch_size) * (rng.random(batch_size) < 0.75)
        chosen = torch.from_numpy(step)
        with torch.no_grad():
            context = teacher.text_encoder(batch.input_ids)
            silence = teacher.text_encoder(no_caption(batch.input_ids)).expand_as(context)
        led = guide(
            predict_with(teacher.denoiser, context[:half]),
            predict_with(teacher.denoiser, silence[:half]),
            guidance_scale,
        )
        times = levels[chosen]
        consistent = consistency_loss(
            predict_with(network.denoiser, context[:half]),
            led,
            batch.at(times)[:half],
            times[:half],
            levels[chosen + 1][:half],
        )
        predict = predict_with(network.denoiser, context[half:])
        anchored = pseudo_huber(
            _on_own_way(predict, batch.start[half:], own, rng), batch.clean[half:]
        )
        return consistent + ANCHOR_WEIGHT * anchored

    return loss


def levels_of(scheduler: FlowScheduler) -> Tensor:
    """Return the levels from which a student predicts in its most steps, `(STUDENT_STEPS,)`."""
    return torch.from_numpy(flow_sigmas(STUDENT_STEPS, shift=scheduler.shift)[:-1])


def _on_own_way(
    predict: Predict, noise: Tensor, levels: Tensor, rng: np.random.Generator
) -> Tensor:
    """Return predictions from one of the levels, to which the student's own predictions led."""
    passed = levels[: int(rng.integers(len(levels))) + 1]
    return predict(walk(predict, noise, passed), passed[-1].expand(len(noise)))


def adversarial_loss(
    bank: LatentBank,
    clips: StickerClips,
    tokenizer: WordPiece,
    teacher: TextDenoiser,
    *,
    scheduler: FlowScheduler,
    batch_size: int,
) -> LossFunction:
    """Return the loss of a `Student` that is judged from every level of its own way.

    Args:
        bank: Clips.
        clips: Write their captions.
        tokenizer: Encodes those.
        teacher: Trained, frozen; the backbone of the discriminator.
        scheduler: How the student is sampled.
        batch_size: Clips of a step.
    """
    own = levels_of(scheduler)

    def loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        assert isinstance(network, Student)
        batch = draw_batch(bank, clips, tokenizer, batch_size, rng, noise)
        with torch.no_grad():
            context = teacher.text_encoder(batch.input_ids)
        words = context[:, : batch.input_ids.shape[1]].mean(dim=1)
        judged = judge(
            network.heads,
            look_with(teacher.denoiser, context),
            real=batch.clean,
            fake=_on_own_way(predict_with(network.denoiser, context), batch.start, own, rng),
            noise=torch.randn(batch.clean.shape, generator=noise),
            times=draw_times(batch_size, noise),
            condition=words,
        )
        return judged.total

    return loss
