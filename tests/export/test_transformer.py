"""The diffusion transformer, the memory that it looks at, and the choices that it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import onnxruntime
import torch
from tiny_training import SUBJECTS, TINY, tiny_sprites
from torch import Tensor, nn

from mvsdk.noise import initial_latents
from mvsdk_export.distill.autoencoder import fit_encoder_
from mvsdk_export.distill.captions import BACKGROUNDS
from mvsdk_export.distill.choices import (
    CHOICES,
    background_choice,
    chosen_background,
    impose_choices,
    read_choices,
)
from mvsdk_export.distill.clips import StickerClips
from mvsdk_export.distill.denoiser import fit_memory_
from mvsdk_export.networks.text_encoder import TextEncoder, TextEncoderConfig
from mvsdk_export.networks.transformer import SpatioTemporalTransformer, TransformerConfig
from mvsdk_export.networks.vae import Autoencoder
from mvsdk_export.targets.onnx import export_onnx

pytestmark = pytest.mark.torch

WORDS = 3
CONFIG = TransformerConfig(
    latent_channels=8,
    num_frames=4,
    width=32,
    layers=2,
    heads=2,
    context_dim=16,
    memory_slots=2,
    memory_tokens=4,
    choices=CHOICES,
)


def _network(seed: int = 0) -> SpatioTemporalTransformer:
    """Return a network of which no layer is zero."""
    torch.manual_seed(seed)
    network = SpatioTemporalTransformer(CONFIG).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def _inputs(b: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return (
        torch.randn(b * 4, 8, 4, 4, generator=rng),
        torch.rand(b, generator=rng),
        torch.randn(b, WORDS + 8, 16, generator=rng),
    )


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other() -> None:
    network = _network()
    sample, timestep, context = _inputs(2)
    both = network(sample, timestep, context)
    assert both.shape == sample.shape
    for i in range(2):
        alone = network(sample[4 * i : 4 * i + 4], timestep[i : i + 1], context[i : i + 1])
        torch.testing.assert_close(both[4 * i : 4 * i + 4], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_input_and_every_frame_matters() -> None:
    network = _network()
    sample, timestep, context = _inputs(1)
    usual = network(sample, timestep, context)
    other_word, other_picture = context.clone(), context.clone()
    other_word[:, 0] += 1.0
    other_picture[:, -1] += 1.0
    for changed in (
        network(sample + 1.0, timestep, context),
        network(sample, 1.0 - timestep, context),
        network(sample, timestep, other_word),
        network(sample, timestep, other_picture),
    ):
        assert (changed - usual).abs().max() > 1e-3
    assert (usual[0] - usual[1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("across", "down"), [(0, 0), (1, 0), (0, 1), (-1, 1)])
def test_pictures_are_seen_where_the_map_looks(across: int, down: int) -> None:
    network = _network()
    assert network.look_at is not None
    assert network.memory_in is not None
    network.look_at.weight.zero_()
    # A place of the frame looks `across` to the right of itself and `down` below.
    network.look_at.bias.copy_(torch.tensor([1.0, 0, across, 0, 1.0, down] * 2))
    seen: list[Tensor] = []
    network.memory_in.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    sample, timestep, context = _inputs(1)
    # Tokens of 2 x 2 cells, each with 2 x 2 patches of 4 numbers: one patch, row 2 and column 1.
    context = torch.zeros_like(context)
    context[0, WORDS + 2].view(2, 2, 4)[0, 1] = 1.0
    network(sample, timestep, context)
    grid = seen[0].reshape(4, 2, 2, 2, 2, 2, 4).permute(0, 1, 3, 2, 4, 5, 6)
    grid = grid.reshape(4, 4, 4, 2, 4)[:, :, :, 0].sum(dim=3)  # (F, rows, columns) of slot 0
    for frame in grid:
        found = np.unravel_index(int(frame.argmax()), (4, 4))
        assert found == (2 - down, 1 - across)


@pytest.mark.slow
def test_exported_transformer_computes_what_pytorch_does(tmp_path: Path) -> None:
    network = _network()
    names = ("sample", "timestep", "encoder_hidden_states")
    inputs = dict(zip(names, _inputs(1), strict=True))
    export_onnx(network, inputs, ["model_output"], tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
    with torch.no_grad():
        wanted = network(*inputs.values()).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def _text_encoder() -> TextEncoder:
    torch.manual_seed(0)
    config = TextEncoderConfig(
        vocabulary_size=9, hidden_size=32, layers=1, heads=2, subjects=3, memory_tokens=4
    )
    return TextEncoder(config).eval()


@torch.no_grad()
def test_memory_gives_what_it_keeps_of_the_subjects_that_are_found() -> None:
    memory = _text_encoder().memory
    assert memory is not None
    certain = torch.full((1, 2, 4), -30.0)
    certain[0, 0, 2] = certain[0, 1, 0] = 30.0
    found = memory(certain)
    assert found.shape == (1, 8, 32)
    torch.testing.assert_close(found[0, :4].flatten(), memory.table.weight[:, 2])
    torch.testing.assert_close(found[0, 4:].flatten(), memory.table.weight[:, 0])


@torch.no_grad()
def test_words_are_followed_by_the_pictures() -> None:
    encoder = _text_encoder()
    ids = torch.randint(0, 9, (2, 16), dtype=torch.int32)
    features = encoder(ids)
    assert features.shape == (2, 16 + 8, 32)
    torch.testing.assert_close(features[:, :16], encoder.encode(ids))


def test_table_keeps_the_looks_of_every_subject() -> None:
    clips = StickerClips(sprites=tiny_sprites(), options=TINY.clips)
    autoencoder = Autoencoder(TINY.autoencoder)
    fit_encoder_(autoencoder, clips)
    memory = _text_encoder().memory
    assert memory is not None
    assert 0.5 < fit_memory_(memory, clips, autoencoder) <= 1.0
    table = memory.table.weight
    assert table[:, : len(SUBJECTS)].square().mean().item() == pytest.approx(1.0, rel=1e-4)
    assert not table[:, len(SUBJECTS)].any()
    distances = torch.cdist(table.T[:3], table.T[:3])
    assert (distances[~torch.eye(3, dtype=torch.bool)] > 1.0).all()


def test_noise_is_normal_and_its_choices_are_uniform() -> None:
    noise = torch.from_numpy(np.stack([initial_latents(s, (4, 8, 4, 4)) for s in range(4000)]))
    choices = read_choices(noise).numpy()
    assert choices.shape == (4000, CHOICES)
    for column in choices.T:
        distance = np.abs(np.sort(column) - (np.arange(4000) + 0.5) / 4000).max()
        assert distance < 1.63 / 4000**0.5  # Kolmogorov and Smirnov, 1 %
    counts = [sum(chosen_background(x) == name for x in choices[:, 0]) for name in BACKGROUNDS]
    assert 300 < min(counts) <= max(counts) < 500


def test_imposed_choices_are_read_and_the_rest_of_the_noise_stays() -> None:
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 4, 8, 4, 4, generator=rng)
    wanted = torch.rand(64, CHOICES, generator=rng) * 0.98 + 0.01
    is_open = torch.ones(64, CHOICES, dtype=torch.bool)
    is_open[::2, 0] = False
    moved = impose_choices(noise, wanted, is_open=is_open)
    found = read_choices(moved)
    torch.testing.assert_close(found[is_open], wanted[is_open], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[~is_open], read_choices(noise)[~is_open])
    assert torch.equal(moved[:, :, CHOICES:], noise[:, :, CHOICES:])
    centred = noise - noise.mean(dim=(1, 3, 4), keepdim=True)
    torch.testing.assert_close(
        moved - moved.mean(dim=(1, 3, 4), keepdim=True), centred, rtol=0, atol=1e-5
    )


def test_background_is_chosen_by_the_numbers_that_say_it() -> None:
    names = list(BACKGROUNDS)
    index = np.repeat(np.arange(len(names)), 3)
    within = np.tile([0.02, 0.5, 0.98], len(names))
    found = [chosen_background(x) for x in background_choice(index, within)]
    assert found == [names[i] for i in index]
