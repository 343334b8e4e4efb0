"""Distillation: where consistency leads, who learns from a judgement, how a student walks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
from torch import Tensor, nn

from mvsdk.schedules import flow_sigmas
from mvsdk_export.checkpoints import FlowScheduler
from mvsdk_export.checkpoints.schedule import make_sampler
from mvsdk_export.training.methods import adversarial
from mvsdk_export.training.methods.adversarial import Heads, judge
from mvsdk_export.training.methods.consistency import (
    Predict,
    consistency_loss,
    euler_step,
    guide,
    pseudo_huber,
    walk,
)
from mvsdk_export.training.sticker.student import STUDENT_STEPS, levels_of

pytestmark = pytest.mark.torch

SPREAD = 0.5
"""Standard deviation of the data of a flow that is solved by hand."""


def _best(x: Tensor, times: Tensor) -> Tensor:
    """Return E[x_0 | x_t] where x_0 is normal with the deviation SPREAD."""
    gain = (1 - times) * SPREAD**2 / ((1 - times) ** 2 * SPREAD**2 + times**2)
    return gain[:, None] * x


class _Gains(nn.Module):
    """A student of one number per level."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.full((steps,), 0.2))

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        levels = len(self.gains)
        return self.gains[((1 - times) * levels).round().long()][:, None] * x


def test_consistency_converges_to_where_the_teacher_goes_in_many_steps() -> None:
    steps = 8
    levels = torch.from_numpy(flow_sigmas(steps))
    student, rng = _Gains(steps), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    for turn in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - turn / 400)
        step = torch.arange(64) % steps
        clean = SPREAD * torch.randn(64, 32, generator=rng)
        times = levels[step]
        noisy = (1 - times)[:, None] * clean
        noisy = noisy + times[:, None] * torch.randn(64, 32, generator=rng)
        optimizer.zero_grad()
        consistency_loss(student, _best, noisy, times, levels[step + 1]).backward()
        optimizer.step()
    noise = torch.randn(4, 32, generator=rng)
    led = walk(_best, noise, levels)
    found = student(noise, torch.ones(4))
    assert (found - led).square().mean() < 1e-3 * led.square().mean()
    # One step of the teacher is no such thing: it predicts the mean of all data.
    assert _best(noise, torch.ones(4)).abs().max() == 0.0


def test_only_the_noisier_end_learns() -> None:
    student = _Gains(4)
    noisy = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([1.0, 0.25])
    consistency_loss(student, _best, noisy, times, times - 0.25).backward()
    grad = student.gains.grad
    assert grad is not None
    assert (grad != 0).tolist() == [True, False, False, True]


def test_clean_end_is_what_the_teacher_says() -> None:
    student = _Gains(4)
    noisy, times = torch.randn(3, 8), torch.full((3,), 0.25)
    found = consistency_loss(student, _best, noisy, times, torch.zeros(3))
    wanted = pseudo_huber(student(noisy, times), _best(noisy, times))
    torch.testing.assert_close(found, wanted)


def test_guidance_of_one_asks_once_and_of_two_leans_twice_as_far() -> None:
    asked: list[str] = []

    def answer(name: str, value: float) -> Predict:
        def predict(x: Tensor, times: Tensor) -> Tensor:
            asked.append(name)
            return torch.full_like(x, value)

        return predict

    x, times = torch.zeros(1, 2), torch.ones(1)
    said, silent = answer("caption", 3.0), answer("none", 1.0)
    assert guide(said, silent, 1.0)(x, times).tolist() == [[3.0, 3.0]]
    assert asked == ["caption"]
    assert guide(said, silent, 2.0)(x, times).tolist() == [[5.0, 5.0]]


def test_walk_with_right_predictions_stays_on_the_straight_line() -> None:
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(3, 8, generator=rng), torch.randn(3, 8, generator=rng)
    levels = torch.from_numpy(flow_sigmas(4))
    for stop in range(1, 6):
        found = walk(lambda x, times: clean, noise, levels[:stop])
        end = levels[stop - 1]
        torch.testing.assert_close(found, (1 - end) * clean + end * noise)


def test_student_walks_over_the_levels_that_it_is_sampled_from() -> None:
    scheduler = FlowScheduler(kind="flow_euler", prediction_type="sample", shift=3.0)
    sampled = make_sampler(scheduler, [STUDENT_STEPS], STUDENT_STEPS).schedules[STUDENT_STEPS]
    assert levels_of(scheduler).tolist() == list(sampled.sigmas[:-1])
    assert levels_of(scheduler)[1] > 0.75, "levels are shifted towards noise"


def test_euler_step_has_a_level_for_every_example() -> None:
    x, clean = torch.tensor([[4.0], [4.0]]), torch.tensor([[2.0], [2.0]])
    found = euler_step(x, clean, torch.tensor([1.0, 0.5]), torch.tensor([0.5, 0.0]))
    assert found.tolist() == [[3.0], [2.0]]


def _look(x: Tensor, times: Tensor) -> Sequence[Tensor]:
    """Return two layers of features `(B, F, C, P)` of latents `(B, F, C, P)`."""
    del times
    return [x, torch.cat([x, x.square()], dim=2)]


def _judged(heads: Heads, real: Tensor, fake: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    judged = judge(
        heads,
        _look,
        real=real,
        fake=fake,
        noise=torch.randn(real.shape, generator=rng),
        times=torch.full((len(real),), 0.3),
        condition=torch.ones(len(real), 5),
    )
    return judged.generator, judged.discriminator


def test_student_and_heads_learn_from_their_own_losses_alone() -> None:
    torch.manual_seed(0)
    heads, real = Heads([4, 8], 5, width=6), torch.randn(2, 3, 4, 7)
    fake = torch.randn(2, 3, 4, 7, requires_grad=True)
    generator, discriminator = _judged(heads, real, fake)
    parameters = [value for name, value in heads.named_parameters() if "weight" in name]
    assert torch.autograd.grad(generator, [fake], retain_graph=True)[0].any()
    of_heads = torch.autograd.grad(generator, parameters, retain_graph=True, allow_unused=True)
    assert all(grad is None for grad in of_heads)
    of_fake = torch.autograd.grad(discriminator, [fake], retain_graph=True, allow_unused=True)
    assert of_fake == (None,)
    assert all(grad.any() for grad in torch.autograd.grad(discriminator, parameters))


def test_heads_see_frames_and_places() -> None:
    torch.manual_seed(0)
    heads = Heads([4], 5, width=6)
    x, condition = torch.randn(2, 3, 4, 7), torch.randn(2, 5)
    usual = heads([x], condition)
    assert usual.shape == (2, 2 * 3 * 7)
    turned = heads([x.flip(1)], condition)
    spatial, temporal = usual[:, :21], usual[:, 21:]
    by_frame = turned[:, :21].reshape(2, 3, 7).flip(1).reshape(2, 21)
    torch.testing.assert_close(by_frame, spatial, rtol=1e-4, atol=1e-5)
    backwards = turned[:, 21:].reshape(2, 7, 3).flip(2).reshape(2, 21)
    assert (backwards - temporal).abs().max() > 1e-3, "order in time matters to the temporal head"


def test_every_clip_is_judged_by_its_own_condition() -> None:
    torch.manual_seed(0)
    heads = Heads([4], 5, width=6)
    x, condition = torch.randn(2, 3, 4, 7), torch.randn(2, 5)
    other = condition.clone()
    other[1] += 1.0
    changed = (heads([x], other) - heads([x], condition)).abs()
    assert changed[0].max() == 0.0
    assert changed[1].min() > 0.0


def test_judgement_alone_moves_a_student_towards_what_is_real(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adversarial, "RECONSTRUCTION_WEIGHT", 0.0)
    torch.manual_seed(0)
    heads, rng = Heads([4, 8], 5, width=8), torch.Generator().manual_seed(1)
    shift = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam(
        [{"params": [shift], "lr": 0.02}, {"params": heads.parameters(), "lr": 0.01}],
        betas=(0.5, 0.9),
    )
    for turn in range(150):
        base = torch.randn(8, 2, 4, 3, generator=rng)
        real = torch.randn(8, 2, 4, 3, generator=rng) + 1.0
        generator, discriminator = _judged(heads, real, base + shift, seed=turn)
        optimizer.zero_grad()
        (generator + discriminator).backward()
        optimizer.step()
    assert 0.6 < shift.item() < 1.4
