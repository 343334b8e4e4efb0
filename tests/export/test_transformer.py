"""The diffusion transformer, the memory that it looks at, and the choices that it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from tiny_training import SUBJECTS, TINY, tiny_sprites
from torch import Tensor, nn

from mvsdk.noise import initial_latents
from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.sticker.choices import (
    CHOICE_DIM,
    ChoiceReader,
    choice_signs,
    without_share,
)
from mvsdk_export.families.sticker.pictures import Layout, Pictures, placing
from mvsdk_export.families.sticker.text_encoder import TextEncoder, TextEncoderConfig
from mvsdk_export.families.sticker.transformer import (
    DOUBT,
    SpatioTemporalTransformer,
    TransformerConfig,
    trust,
)
from mvsdk_export.graphs.onnx import convert_float16, export_onnx
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.training.data.captions import BACKGROUNDS, MOTIONS, Scene
from mvsdk_export.training.data.clips import CHANCES, StickerClips
from mvsdk_export.training.data.sprites import Facing
from mvsdk_export.training.methods.autoencoder import fit_encoder_
from mvsdk_export.training.sticker.bank import LatentBank
from mvsdk_export.training.sticker.choices import (
    CHOICES,
    background_choice,
    chosen_background,
    impose_choices,
    read_choices,
    remove_choices,
)
from mvsdk_export.training.sticker.drafts import draw_pictures, fit_memory_, flat_weights

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
    memory_tokens=5,
    picture_cells=4,
    picture_size=32,
    choices=CHOICES,
    choice_levels=len(BACKGROUNDS),
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
        torch.randn(b, WORDS + 10, 16, generator=rng),
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
    other_word, other_picture, other_note = context.clone(), context.clone(), context.clone()
    other_word[:, 0] += 1.0
    other_picture[:, WORDS] += 1.0
    other_note[:, -1] += 1.0
    for changed in (
        network(sample + 1.0, timestep, context),
        network(sample, 1.0 - timestep, context),
        network(sample, timestep, other_word),
        network(sample, timestep, other_picture),
        network(sample, timestep, other_note),
    ):
        assert (changed - usual).abs().max() > 1e-3
    assert (usual[0] - usual[1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("motion", MOTIONS)
def test_pictures_lie_where_a_layout_says(motion: str) -> None:
    clips = StickerClips(sprites=tiny_sprites(), options=replace(TINY.clips, frames=8))
    pictures = Pictures(replace(CONFIG, num_frames=8, context_dim=512))
    bank = _bank(clips, Scene(subject=1, motion=motion, background="black"))
    layout = bank.layouts(clips, np.zeros(1, np.int64))
    drawn = clips.render([bank.scene(0)], np.random.default_rng(0), bank.chances.astype(float))[0]
    # Codes of 32 numbers for each of 4 x 4 cells cannot hold a picture, so that it is put in place.
    animated = draw_pictures(clips, 8, 32)[1].float()
    pictures.decode_codes = lambda codes: animated if codes.any() else torch.zeros_like(animated)
    certain = F.one_hot(layout.orientations, 2 * pictures.config.turns) * 50.0
    codes = torch.tensor([1.0, 0.0])[None, :, None].expand(1, 2, 128)
    placed = pictures(codes, Layout(layout.boxes, certain), (32, 32))
    assert placed.shape == (8, 8, 32, 32)
    assert not placed[:, 4:].any()
    shown = drawn.astype(float) - BACKGROUNDS["black"]
    error = placed[:, :3].permute(0, 2, 3, 1).numpy() * 255 - shown.clip(0)
    assert np.sqrt((error**2).mean()) < 0.35 * np.sqrt((shown**2).mean())


def _bank(clips: StickerClips, scene: Scene) -> LatentBank:
    row = [scene.subject, -1, MOTIONS.index(scene.motion), [*BACKGROUNDS].index("black"), 0]
    return LatentBank(
        latents=np.zeros((1, clips.options.frames, 8, 4, 4), np.float16),
        scenes=np.array([row], np.int64),
        chances=np.full((1, CHANCES), 0.5, np.float32),
    )


@pytest.mark.parametrize(("centre", "extent"), [(0.0, 1.0), (0.0, -1.0), (-0.25, 0.5), (0.1, 2.0)])
def test_placing_keeps_a_line_and_its_brightness(centre: float, extent: float) -> None:
    matrix = placing(torch.tensor([centre]), torch.tensor([extent]), 16, 32)[0]
    assert matrix.shape == (32, 16)
    places = (torch.arange(32) + 0.5) / 32 - 0.5
    inside = (places - centre).abs() < abs(extent) / 2 - 0.1
    torch.testing.assert_close(matrix.sum(dim=1)[inside], torch.ones(int(inside.sum())))
    along = (torch.arange(16) + 0.5) / 16 - 0.5
    reached = (matrix @ along)[inside] * extent + centre
    torch.testing.assert_close(reached, places[inside], rtol=0, atol=0.02)


@torch.no_grad()
def test_layers_add_to_a_draft() -> None:
    network = _network()
    sample, _, context = _inputs(1)
    timestep = torch.ones(1)  # where the noise says nothing
    nn.init.zeros_(network.patch_out.weight)
    nn.init.zeros_(network.patch_out.bias)
    drafted = network(sample, timestep, context)
    layout, weights = network.arrange(sample, timestep, context)
    assert network.pictures is not None
    codes = context[:, WORDS:].reshape(1, 2, 5, 16)[:, :, :-1].flatten(2)
    parts = network.pictures_in(network.pictures(codes, layout, (32, 32))).chunk(4, dim=1)
    gains = weights.reshape(4, 5, 8, 1, 1)
    wanted = sum((part * gains[:, i] for i, part in enumerate(parts)), gains[:, 4])
    torch.testing.assert_close(drafted, without_share(wanted, 4, CHOICES))


def test_pictures_are_placed_exactly_in_half_precision() -> None:
    rng = torch.Generator().manual_seed(0)
    centre = (0.5 * torch.rand(200, generator=rng) - 0.25).half()
    extent = (0.9 * torch.rand(200, generator=rng) + 0.2).half()
    exact = placing(centre.double(), extent.double(), 48, 64)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        found = placing(centre, extent, 48, 64)
    finally:
        torch.set_default_dtype(default)
    assert found.dtype == torch.float16
    error = (found.double() - exact).square().sum() / exact.square().sum()
    assert -10 * torch.log10(error) > 60.0, "as distances stand it would be some 43 dB"


def test_noisy_latents_are_trusted_as_is_best() -> None:
    rng = torch.Generator().manual_seed(0)
    times = torch.tensor([1.0, 0.9, 0.5, 0.25, 0.05])
    clean = DOUBT**0.5 * torch.randn(5, 20_000, generator=rng)
    noisy = (1 - times)[:, None] * clean
    noisy = noisy + times[:, None] * torch.randn(clean.shape, generator=rng)
    best = (noisy * clean).sum(dim=1) / noisy.square().sum(dim=1)
    torch.testing.assert_close(trust(times), best, rtol=0.05, atol=0.01)
    assert trust(times)[0] == 0.0


@torch.no_grad()
def test_pure_noise_reaches_the_layers_by_its_choices_alone() -> None:
    network = _network()
    noise, _, context = _inputs(1)
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(9))
    choices = read_choices(noise[None])
    other = impose_choices(other[None], choices, is_open=choices > 0)[0]
    both = [network(x, torch.ones(1), context) for x in (noise, other)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-3, atol=1e-3)
    halfway = [network(x, torch.full((1,), 0.5), context) for x in (noise, other)]
    assert (halfway[0] - halfway[1]).abs().max() > 1e-2


@torch.no_grad()
def test_forms_of_npus_compute_the_same() -> None:
    network = _network()
    wanted = network(*_inputs(1))
    select_implementations_(network, "htp")
    torch.testing.assert_close(network(*_inputs(1)), wanted, rtol=1e-4, atol=1e-5)


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
        vocabulary_size=9, hidden_size=32, layers=1, heads=2, subjects=3, memory_tokens=5
    )
    return TextEncoder(config).eval()


@torch.no_grad()
def test_memory_gives_what_it_keeps_of_the_subjects_that_are_found() -> None:
    memory = _text_encoder().memory
    assert memory is not None
    certain = torch.full((1, 2, 4), -30.0)
    certain[0, 0, 2] = certain[0, 1, 0] = 30.0
    found = memory(certain)
    assert found.shape == (1, 10, 32)
    torch.testing.assert_close(found[0, :5].flatten(), memory.table.weight[:, 2])
    torch.testing.assert_close(found[0, 5:].flatten(), memory.table.weight[:, 0])


@torch.no_grad()
def test_words_are_followed_by_the_pictures() -> None:
    encoder = _text_encoder()
    ids = torch.randint(0, 9, (2, 16), dtype=torch.int32)
    features = encoder(ids)
    assert features.shape == (2, 16 + 10, 32)
    torch.testing.assert_close(features[:, :16], encoder.encode(ids))


def test_table_keeps_the_looks_of_every_subject() -> None:
    clips = StickerClips(sprites=tiny_sprites(), options=TINY.clips)
    autoencoder = Autoencoder(TINY.autoencoder)
    fit_encoder_(autoencoder, clips)
    memory, denoiser = _text_encoder().memory, SpatioTemporalTransformer(TINY.denoiser)
    assert memory is not None
    assert denoiser.pictures is not None
    drawn = draw_pictures(clips, 4, 16)
    assert fit_memory_(memory, denoiser, clips, drawn, autoencoder) > 20.0
    table = memory.table.weight
    assert not table[:, len(SUBJECTS)].any()
    with torch.no_grad():
        kept = denoiser.pictures.decode_codes(table[:-32, :3].T).reshape(3, 4, 4, 16, 16)
    error = kept - drawn.float()
    assert -10 * torch.log10(error.square().mean()) > 20.0
    facing = table[-32:, :3].argmax(dim=0)
    assert [get_args(Facing)[i] for i in facing] == [subject.facing for subject in SUBJECTS]


def test_draft_on_a_background_is_the_encoded_clip() -> None:
    clips = StickerClips(sprites=tiny_sprites(), options=TINY.clips)
    autoencoder = Autoencoder(TINY.autoencoder)
    fit_encoder_(autoencoder, clips)
    weights = flat_weights(autoencoder).reshape(len(BACKGROUNDS), 5, 8)
    memory, denoiser = _text_encoder().memory, SpatioTemporalTransformer(TINY.denoiser)
    assert memory is not None
    fit_memory_(memory, denoiser, clips, draw_pictures(clips, 4, 16), autoencoder)
    picture = draw_pictures(clips, 4, 32)[0].float()
    with torch.no_grad():
        parts = denoiser.pictures_in(torch.cat([picture, torch.zeros_like(picture)], dim=1))
        gains = weights[list(BACKGROUNDS).index("pink")][:, :, None, None]
        draft = sum((part * gains[i] for i, part in enumerate(parts.chunk(4, dim=1))), gains[4])
        ground = torch.tensor(BACKGROUNDS["pink"])[:, None, None] / 255
        seen = picture[:, :3] + ground * (1 - picture[:, 3:])
        wanted = autoencoder.encode(seen * 2 - 1)
    torch.testing.assert_close(draft, wanted, rtol=1e-3, atol=1e-3)


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
    assert torch.equal(moved[:, :, :-CHOICES], noise[:, :, :-CHOICES])
    signs = choice_signs(4, 4, 4, noise.device)[None, :, None]
    change = (moved - noise)[:, :, -CHOICES:] * signs
    torch.testing.assert_close(change, change[:, :1, :, :1, :1].expand_as(change))


@torch.no_grad()
def test_choices_are_the_same_at_every_noise_level() -> None:
    reader, rng = ChoiceReader(CONFIG.num_frames, CHOICES), torch.Generator().manual_seed(0)
    noise, clean = torch.randn(2, 2, 4, 8, 4, 4, generator=rng)
    start = reader(noise.flatten(0, 1), torch.ones(2))
    for t in (0.75, 0.5, 0.1):
        noisy = t * noise + (1 - t) * remove_choices(clean)
        found = reader(noisy.flatten(0, 1), torch.full((2,), t))
        torch.testing.assert_close(found, start, rtol=1e-3, atol=1e-3)
    other = reader((0.5 * noise + 0.5 * clean).flatten(0, 1), torch.full((2,), 0.5))
    assert (other - start).abs().max() > 0.05, "ordinary latents have a share"


@torch.no_grad()
def test_choice_among_few_is_the_same_wherever_its_noise_lies() -> None:
    reader = ChoiceReader(4, CHOICES, len(BACKGROUNDS))
    index = np.repeat(np.arange(len(BACKGROUNDS)), 3)
    within = np.tile([0.01, 0.5, 0.99], len(BACKGROUNDS))
    wanted = torch.full((len(index), CHOICES), 0.5, dtype=torch.float64)
    wanted[:, 0] = torch.from_numpy(background_choice(index, within))
    noise = torch.randn(len(index), 4, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = impose_choices(noise, wanted, is_open=wanted > 0)
    found = reader(noise.flatten(0, 1), torch.ones(len(index))).reshape(len(BACKGROUNDS), 3, -1)
    torch.testing.assert_close(found, found[:, 1:2].expand_as(found), rtol=1e-3, atol=1e-3)
    assert (found[1:, 0] - found[:-1, 0]).abs().amax(dim=1).min() > 0.3
    plain = ChoiceReader(4, CHOICES)(noise.flatten(0, 1), torch.ones(len(index)))
    torch.testing.assert_close(found[:, 1], plain.reshape(found.shape)[:, 1], rtol=1e-3, atol=1e-3)


def test_half_precision_shows_a_choice_among_few_as_it_is(tmp_path: Path) -> None:
    reader = ChoiceReader(4, CHOICES, len(BACKGROUNDS)).eval()
    noise = torch.randn(4, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    inputs = {"sample": noise, "timestep": torch.ones(1)}
    export_onnx(reader, inputs, ["features"], tmp_path / "model.onnx")
    model = convert_float16(onnx.load(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        wanted = reader(noise, torch.ones(1)).numpy()
    error = np.abs(found - wanted)[0]
    assert error[:CHOICE_DIM].max() < 1e-3, "constants, rounded once"


@torch.no_grad()
def test_predictions_make_no_choices() -> None:
    network = _network()
    found = network(*_inputs(2)).reshape(2, 4, 8, 4, 4)
    torch.testing.assert_close(remove_choices(found), found)
    torch.testing.assert_close(read_choices(found), torch.full((2, CHOICES), 0.5))


def test_removing_choices_leaves_all_else() -> None:
    clean = torch.randn(2, 4, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    kept = remove_choices(clean)
    assert torch.equal(kept[:, :, :-CHOICES], clean[:, :, :-CHOICES])
    signs = choice_signs(4, 4, 4, clean.device)[None, :, None]
    removed = (clean - kept)[:, :, -CHOICES:] * signs
    torch.testing.assert_close(removed, removed[:, :1, :, :1, :1].expand_as(removed))


def test_background_is_chosen_by_the_numbers_that_say_it() -> None:
    names = list(BACKGROUNDS)
    index = np.repeat(np.arange(len(names)), 3)
    within = np.tile([0.02, 0.5, 0.98], len(names))
    found = [chosen_background(x) for x in background_choice(index, within)]
    assert found == [names[i] for i in index]
