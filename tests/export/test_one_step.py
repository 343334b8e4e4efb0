"""Noise levels of Stable Video Diffusion, and finetuning any network of its family to one step."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
from tiny_animator_training import FRAMES, TINY
from tiny_training import losses_of
from torch import Tensor

from mvsdk.noise import initial_latents
from mvsdk.sampling import sample_edm_euler
from mvsdk.schedules import edm_timesteps, karras_sigmas
from mvsdk_export.checkpoints import EDMScheduler
from mvsdk_export.distill import edm, one_step
from mvsdk_export.distill.loop import train
from mvsdk_export.distill.options import TrainOptions
from mvsdk_export.networks.svd.config import SVDUNetConfig
from mvsdk_export.networks.svd.graphs import OneStepGraph
from mvsdk_export.networks.svd.unet import SVDUNet

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


FAMILY = SVDUNetConfig(
    in_channels=8,
    out_channels=4,
    block_out_channels=(8, 16, 16, 16),
    layers_per_block=1,
    num_attention_heads=(2, 2, 2, 2),
    cross_attention_dim=12,
    addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=12,
    num_frames=3,
    norm_groups=4,
)
"""Another member of the family: latents of four channels, odd numbers of frames and features."""


def ramps(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, one_step.Conditions]:
    """Draw clips that follow from what is given: the picture, brighter from frame to frame."""
    del noise
    picture = torch.from_numpy(rng.standard_normal((4, 4, 8, 16)).astype(np.float32))
    clean = torch.stack([picture * (0.5 + 0.25 * frame) for frame in range(3)], dim=1)
    conditions = one_step.Conditions(
        features=picture.flatten(1)[:, None, :12],
        image_latents=picture,
        added_time_ids=torch.tensor([[6.0, 127.0, 0.02]]).repeat(4, 1),
    )
    return clean, conditions


@pytest.mark.parametrize("keep", [None, 3])
def test_any_network_of_the_family_learns_to_jump(tmp_path: Path, keep: int | None) -> None:
    torch.manual_seed(0)
    backbone = SVDUNet(FAMILY).requires_grad_(False).eval()
    student = one_step.OneStepStudent(SVDUNet(FAMILY), FAMILY.block_out_channels, 12, keep=keep)
    loss = one_step.one_step_loss(ramps, backbone, scheduler=EDMScheduler())
    clean, conditions = ramps(np.random.default_rng(99), torch.Generator())
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
