"""Noise levels of Stable Video Diffusion, and finetuning any network of its family to one step."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
from tiny_animator_training import FRAMES, TINY, draw_ramps, tiny_student
from tiny_training import losses_of
from torch import Tensor

from mvsdk.noise import initial_latents
from mvsdk.sampling import sample_edm_euler
from mvsdk.schedules import edm_timesteps, karras_sigmas
from mvsdk_export.checkpoints import EDMScheduler
from mvsdk_export.families.svd.graphs import OneStepGraph
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.training.loop import train
from mvsdk_export.training.methods import edm, one_step
from mvsdk_export.training.options import TrainOptions

pytestmark = pytest.mark.torch


def exact_velocity(clean: Tensor) -> edm.Network:
    """Return the network that knows the clean latents."""

    def network(scaled: Tensor, times: Tensor) -> Tensor:
        c = edm.coefficients_of((4 * times).exp())
        noisy = scaled / edm.like(c.into, scaled)
        return (clean - edm.like(c.skip, noisy) * noisy) / edm.like(c.out, noisy)

    return network


def test_network_that_knows_the_clip_has_no_loss_and_denoises_at_every_level() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 2, 4, 4, 4, generator=generator)
    sigmas = torch.tensor([0.01, 1.0, 100.0])
    network = exact_velocity(clean)
    assert edm.denoising_loss(network, clean, noise, sigmas) < 1e-6
    denoised = edm.denoise(network, edm.edm_noise(clean, noise, sigmas), sigmas)
    torch.testing.assert_close(denoised, clean, rtol=1e-3, atol=1e-3)


def test_weight_of_the_loss_is_even_where_nothing_is_known() -> None:
    clean = torch.randn(400, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    for sigma in (0.05, 1.0, 50.0):
        levels = torch.full((400,), sigma)
        loss = edm.denoising_loss(lambda x, _: torch.zeros_like(x), clean, noise, levels)
        assert loss.item() == pytest.approx(1.0, rel=0.02)


def test_walk_is_that_of_the_runtime_and_a_jump_that_of_the_graph() -> None:
    torch.manual_seed(0)
    unet = SVDUNet(TINY.unet).eval()
    picture = torch.randn(1, 32, 4, 4)
    conditions = one_step.Conditions(
        features=torch.randn(1, 1, 16), image_latents=picture, added_time_ids=torch.rand(1, 3)
    )
    network = one_step.predict_with(unet, conditions)
    noise = initial_latents(3, (FRAMES, 32, 4, 4))
    ours = edm.walk_down(network, torch.from_numpy(noise)[None], EDMScheduler(), 4)[0]
    sigmas = karras_sigmas(4, 0.002, 700.0)
    times = edm_timesteps(sigmas)

    @torch.no_grad()
    def denoise(model_input: np.ndarray, index: int) -> np.ndarray:
        scaled = torch.from_numpy(model_input)[None]
        return network(scaled, torch.tensor([float(times[index])]))[0].numpy()

    *_, theirs = sample_edm_euler(
        denoise, noise * np.float32(np.hypot(700, 1)), sigmas, prediction_type="v_prediction"
    )
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3, atol=1e-3)
    jumped = edm.jump_down(network, torch.from_numpy(noise)[None], 700.0)[0]
    graph = OneStepGraph(unet)
    with torch.no_grad():
        output = graph(
            torch.from_numpy(noise), conditions.features, picture, conditions.added_time_ids
        )
    torch.testing.assert_close(jumped, output, rtol=1e-4, atol=1e-4)


def test_students_predict_from_the_noisy_levels_of_a_grid_of_four() -> None:
    levels = one_step.generator_levels(EDMScheduler())
    assert levels.tolist() == pytest.approx([700.0, 70.54, 2.269], rel=1e-3)
    assert sum(one_step.GENERATOR_SHARES) == pytest.approx(1.0)


@pytest.mark.parametrize("keep", [None, 3])
def test_any_network_of_the_family_learns_to_jump(tmp_path: Path, keep: int | None) -> None:
    backbone, student = tiny_student(keep)
    loss = one_step.one_step_loss(draw_ramps, backbone, scheduler=EDMScheduler())
    clean, conditions = draw_ramps(np.random.default_rng(99), torch.Generator())
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))

    def distance() -> float:
        network = one_step.predict_with(student.unet, conditions)
        return (edm.jump_down(network, noise, 700.0) - clean).square().mean().item()

    before = distance()
    options = TrainOptions(
        steps=40, batch_size=4, learning_rate=5e-3, warmup_steps=2, ema_decay=0.5
    )
    with closing(train(student, loss, options, tmp_path)) as steps:
        assert len(losses_of(steps)) == 40
    assert distance() < 0.6 * before


def test_shares_decide_from_which_levels_a_student_predicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noised: list[Tensor] = []

    def note(clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        noised.append(sigmas)
        return edm.edm_noise(clean, noise, sigmas)

    monkeypatch.setattr(one_step, "edm_noise", note)
    backbone, student = tiny_student(None)
    for level, shares in enumerate(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))):
        noised.clear()
        loss = one_step.one_step_loss(draw_ramps, backbone, scheduler=EDMScheduler(), shares=shares)
        loss(student, np.random.default_rng(0), torch.Generator().manual_seed(0))
        assert (noised[0] == one_step.generator_levels(EDMScheduler())[level]).all()


def test_weight_of_the_distance_is_that_which_is_asked_for() -> None:
    backbone, student = tiny_student(None)
    found = [
        one_step.one_step_loss(
            draw_ramps, backbone, scheduler=EDMScheduler(), reconstruction_weight=weight
        )(student, np.random.default_rng(0), torch.Generator().manual_seed(0)).item()
        for weight in (0.0, 1.0, 3.0)
    ]
    assert found[1] > found[0] + 0.05
    assert found[2] - found[0] == pytest.approx(3 * (found[1] - found[0]), rel=1e-3)
