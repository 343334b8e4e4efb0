"""Consistency distillation of a rectified flow: a guided teacher of many steps, a student of few.

Everything here is a function of `Predict`s, whatever network stands behind them: an image or a
video model, with or without guidance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents `(B, ...)`, noise levels `(B,)`) -> clean latents `(B, ...)`, at conditions that
are given."""

HUBER = 0.03
"""Where the pseudo-Huber distance turns from squares to absolute values, in units of latents."""


def guide(conditional: Predict, unconditional: Predict, scale: float) -> Predict:
    """Return predictions that lean away from what no caption would give.

    Args:
        conditional: Predictions for the captions.
        unconditional: Predictions for no caption.
        scale: 1 for the conditional predictions as they are, which is all that is then computed.

    Reference:
        Ho and Salimans 2022, arXiv:2207.12598.
    """
    if scale == 1.0:
        return conditional

    def predict(x: Tensor, times: Tensor) -> Tensor:
        plain = unconditional(x, times)
        return plain + scale * (conditional(x, times) - plain)

    return predict


def euler_step(x: Tensor, denoised: Tensor, times: Tensor, next_times: Tensor) -> Tensor:
    """Go from noise levels `(B,)` to lower ones along the flow: `x <- x_0 + (s / t) (x - x_0)`."""
    ratio = _like(next_times / times, x)
    return denoised + ratio * (x - denoised)


@torch.no_grad()
def walk(predict: Predict, noise: Tensor, levels: Tensor) -> Tensor:
    """Return where the predictions' own way from noise `(B, ...)` leads, at the last of `levels`.

    Args:
        predict: What is asked at every level but the last.
        noise: Latents at the first level, which is 1.
        levels: Falling noise levels `(K,)` in [0, 1]; one alone leaves the noise as it is.
    """
    x = noise
    for level, following in itertools.pairwise(levels):
        times, next_times = level.expand(len(x)), following.expand(len(x))
        x = euler_step(x, predict(x, times), times, next_times)
    return x


def consistency_loss(
    student: Predict,
    teacher: Predict,
    noisy: Tensor,
    times: Tensor,
    next_times: Tensor,
) -> Tensor:
    """Return the distance of the student's predictions at both ends of one step of the teacher.

    The end with less noise is the target and gets no gradient; where it is clean, the teacher's own
    prediction is the target. There is no average of the student: the target is its present self.

    Args:
        student: Predictions to be trained.
        teacher: Guided predictions that are not.
        noisy: Latents at `times`, `(B, ...)`.
        times: Noise levels `(B,)` in (0, 1].
        next_times: Lower ones, `(B,)` in [0, 1).

    Reference:
        Song et al. 2023, arXiv:2303.01469, Alg. 2; Luo et al. 2023, arXiv:2310.04378 (guidance
        distilled in); Song and Dhariwal 2023, arXiv:2310.14189 (pseudo-Huber, no average).
    """
    with torch.no_grad():
        denoised = teacher(noisy, times)
        less_noisy = euler_step(noisy, denoised, times, next_times)
        target = student(less_noisy, torch.where(next_times > 0, next_times, times))
        target = torch.where(_like(next_times > 0, noisy), target, denoised)
    return pseudo_huber(student(noisy, times), target)


def pseudo_huber(x: Tensor, y: Tensor, *, bend: float = HUBER) -> Tensor:
    """Return the mean of `sqrt((x - y)^2 + bend^2) - bend`.

    Reference:
        Charbonnier et al. 1997, IEEE TIP 6(2).
    """
    return ((x - y).square() + bend**2).sqrt().mean() - bend


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.dim() - 1))
