"""The image-to-video model: what follows from a picture, how it is learned and made small."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
from tiny_training import LOOP, SIZE, SUBJECTS, coarse_features, losses_of, tiny_sprites
from torch import Tensor

from mvsdk.errors import InputError
from mvsdk.noise import initial_latents
from mvsdk.sampling import sample_edm_euler
from mvsdk.schedules import edm_timesteps, karras_sigmas
from mvsdk_export.checkpoints import EDMScheduler, OneStepScheduler, open_model
from mvsdk_export.commands.train import TRAIN
from mvsdk_export.compress.importance import load_importance
from mvsdk_export.distill.animator import edm, losses, networks, packaging, stages, work_folder
from mvsdk_export.distill.animator.bank import check_clip_bank
from mvsdk_export.distill.animator.clips import (
    TRAVEL,
    AnimatedClips,
    Start,
    held_out_subjects,
    is_never_mirrored,
    move_of,
)
from mvsdk_export.distill.animator.measures import Animate, animate_with, measure_ways
from mvsdk_export.distill.animator.options import ANIMATOR_STAGES, CHAIN, AnimatorStage
from mvsdk_export.distill.animator.quality import AnimatorQuality
from mvsdk_export.distill.animator.recipe import AnimatorTraining
from mvsdk_export.distill.captions import held_out_background
from mvsdk_export.distill.clips import ClipOptions
from mvsdk_export.distill.measures import direction_of, way_of
from mvsdk_export.distill.options import TrainingError, TrainOptions, TrainStep
from mvsdk_export.distill.sprites import Subject, load_subjects, save_sprites, sprite_cache
from mvsdk_export.networks.svd.clip_vision import ClipVisionConfig
from mvsdk_export.networks.svd.config import SVDUNetConfig
from mvsdk_export.networks.svd.graphs import FirstFrameGraph, ImageEncoderGraph, OneStepGraph
from mvsdk_export.networks.svd.unet import SVDUNet
from mvsdk_export.networks.vae import FrameDecoder
from mvsdk_export.recipes import find_recipe

pytestmark = pytest.mark.torch

FRAMES = 4
_FINETUNED = TrainOptions(steps=3, batch_size=4, learning_rate=1e-3, warmup_steps=1)

TINY = AnimatorTraining(
    subjects=SUBJECTS,
    sprite_size=SIZE,
    sprite_frames=LOOP,
    clips=ClipOptions(frames=FRAMES, size=SIZE, scale=0.6, scale_spread=0.1, place_spread=0.05),
    unet=SVDUNetConfig(
        in_channels=64,
        out_channels=32,
        block_out_channels=(16, 16, 8, 8),
        layers_per_block=1,
        num_attention_heads=(2, 2, 1, 1),
        cross_attention_dim=16,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        num_frames=FRAMES,
        norm_groups=4,
    ),
    image_encoder=ClipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
        projection_dim=16,
    ),
    bank_clips=70,
    image_encoder_options=TrainOptions(
        steps=20, batch_size=16, learning_rate=5e-3, warmup_steps=2, ema_decay=0.8
    ),
    base_options=TrainOptions(
        steps=30, batch_size=8, learning_rate=5e-3, warmup_steps=5, ema_decay=0.8
    ),
    one_step_options=_FINETUNED,
    frames_options=_FINETUNED,
    importance_options=_FINETUNED,
    prune_options=_FINETUNED,
    funnels_options=_FINETUNED,
)


def run(stage: AnimatorStage, work: Path, recipe: AnimatorTraining = TINY) -> list[TrainStep]:
    with closing(stages.run_stage(stage, recipe, work)) as steps:
        return list(steps)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a work folder with sprites."""
    work = tmp_path_factory.mktemp("animator")
    path = sprite_cache(work, size=SIZE, source_frames=LOOP, subjects=SUBJECTS)
    save_sprites(tiny_sprites(), path)
    return work


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, dict[str, list[TrainStep]]]:
    """Return a work folder with every stage finished, and their steps."""
    return data, {stage: run(stage, data) for stage in ANIMATOR_STAGES[:-1]}


def arrows(*, frames: int = 8) -> AnimatedClips:
    options = ClipOptions(frames=frames, size=64, scale=0.5)
    return AnimatedClips(sprites=tiny_sprites().select(["arrow"]), options=options)


def start(**changes: object) -> Start:
    return replace(
        Start(subject=0, background="white", colour=(250, 250, 250)),
        **changes,  # pyright: ignore
    )


def test_mirrored_picture_goes_the_other_way() -> None:
    clips = arrows()
    plain, mirrored = clips.render([start(), start(mirrored=True)])
    assert [direction_of(plain), direction_of(mirrored)] == ["left", "right"]
    np.testing.assert_array_equal(mirrored[0], plain[0][:, ::-1])


def test_bucket_decides_how_far_and_nothing_of_the_picture() -> None:
    clips = arrows()
    frames = clips.render([start(bucket=bucket) for bucket in (0, 64, 127)])
    for other in frames[1:]:
        np.testing.assert_array_equal(other[0], frames[0][0])
    found = [way_of(x) for x in frames]
    ways = [way[0] for way in found if way is not None]
    assert ways == pytest.approx([0, -TRAVEL * 64 / 127, -TRAVEL], abs=0.01)
    assert not np.array_equal(frames[0][0], frames[0][-1]), "it stands still, but is animated"


def test_subjects_that_look_nowhere_move_as_their_kind_does() -> None:
    subjects = {x.id: x for x in load_subjects()}
    assert move_of(subjects["balloon"], mirrored=True) == "rise"
    assert move_of(subjects["pizza"], mirrored=False) == "hop"
    assert move_of(subjects["car"], mirrored=False) == subjects["car"].facing


def test_training_never_shows_what_is_held_out() -> None:
    subjects = load_subjects()[:60]
    clips = AnimatedClips(sprites=_blank(subjects))
    rng = np.random.default_rng(0)
    held = held_out_subjects(subjects)
    assert 0 < len(held) < 30
    for _ in range(400):
        seen = clips.sample_start(rng)
        subject = subjects[seen.subject]
        assert seen.subject not in held
        assert seen.background != held_out_background(subject)
        assert not (seen.mirrored and is_never_mirrored(subject))
        new = clips.sample_start(rng, "backgrounds")
        assert new.subject not in held
        assert new.background == held_out_background(subjects[new.subject])
        new = clips.sample_start(rng, "mirrorings")
        assert new.subject not in held
        assert new.mirrored
        assert is_never_mirrored(subjects[new.subject])
        assert clips.sample_start(rng, "subjects").subject in held


def _blank(subjects: Sequence[Subject]):
    from mvsdk_export.distill.sprites import Sprites

    shape = (len(subjects), 1, 8, 8, 4)
    return Sprites(subjects=tuple(subjects), rgba=np.zeros(shape, np.uint8))


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
    conditions = networks.Conditions(
        features=torch.randn(1, 1, 16), image_latents=picture, added_time_ids=torch.rand(1, 3)
    )
    network = networks.predict_with(unet, conditions)
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
    levels = losses.generator_levels(EDMScheduler())
    assert levels.tolist() == pytest.approx([700.0, 70.54, 2.269], rel=1e-3)
    assert sum(losses.GENERATOR_SHARES) == pytest.approx(1.0)


def test_loss_falls_and_every_stage_goes_on_from_the_one_before(
    trained: tuple[Path, dict[str, list[TrainStep]]],
) -> None:
    work, steps = trained
    for stage in ("image_encoder", "base"):
        found = losses_of(steps[stage])
        assert sum(found[-5:]) < 0.9 * sum(found[:5])
    for stage in CHAIN:
        assert len(losses_of(steps[stage])) == 3
        assert run(stage, work) == [], "it is finished"


def test_heads_begin_as_the_stage_before_left_them(
    trained: tuple[Path, dict[str, list[TrainStep]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = trained
    begun: list[networks.OneStepStudent] = []

    def capture(network: networks.OneStepStudent, *_: object, **__: object) -> list[TrainStep]:
        begun.append(network)
        return []

    monkeypatch.setattr(stages, "train", capture)
    for stage in CHAIN:
        assert list(stages.RUNNERS[stage](TINY, work, stages.ALONE)) == []
    first, *others = (network.heads.state_dict() for network in begun)
    for before, heads in zip(CHAIN[:-1], others, strict=True):
        left = work_folder.load_student(before, TINY, work).heads.state_dict()
        torch.testing.assert_close(heads, left, rtol=0, atol=0)
        assert any(not torch.equal(first[name], heads[name]) for name in first), "they learn"


def test_finetuning_leaves_the_base_alone_and_lets_so_many_blocks_through(
    trained: tuple[Path, dict[str, list[TrainStep]]],
) -> None:
    work, _ = trained
    base = work_folder.load_base(TINY, work)
    unet = work_folder.begin_unet("importance", TINY, work)
    student = work_folder.build_student("importance", unet, TINY)
    loss = losses.one_step_loss(
        work_folder.load_clip_bank(TINY, work),
        work_folder.load_autoencoder(TINY),
        base,
        scheduler=TINY.scheduler,
        batch_size=2,
    )
    for seed in range(3):
        loss(student, np.random.default_rng(seed), torch.Generator().manual_seed(seed)).backward()
        gates = [block.gate for block in unet.temporal_blocks().values()]
        assert sum(gate == 1 for gate in gates if gate is not None) == TINY.kept_blocks == 7
        assert sum(gate == 0 for gate in gates if gate is not None) == 24 - 7
    assert all(x.grad is None for x in base.parameters())
    learns = {name for name, x in student.named_parameters() if x.grad is not None and x.grad.any()}
    assert {"unet.conv_in.weight", "importance.scores", "heads.spatial.0.conv_in.weight"} <= learns


def test_chain_compresses_step_by_step(
    trained: tuple[Path, dict[str, list[TrainStep]]],
) -> None:
    work, _ = trained
    found = {stage: work_folder.load_unet(stage, TINY, work).config for stage in ("base", *CHAIN)}
    assert found["base"] == TINY.unet
    assert found["one_step"] == replace(TINY.unet, folded_cross_attention=True)
    assert found["importance"] == found["frames"]
    assert found["frames"] == replace(found["one_step"], frame_levels=1)
    kept = found["prune"].temporal_blocks
    assert (len(kept), kept.count("1")) == (24, 7)
    assert found["funnels"] == replace(found["prune"], funnel_factor=0.5, funnel_layers="spatial")


def test_pruned_blocks_are_those_of_the_least_learned_importance(
    trained: tuple[Path, dict[str, list[TrainStep]]],
) -> None:
    work, _ = trained
    importance = load_importance(work_folder.importance_file(work))
    assert importance.recipe == "animator"
    assert any(score != 0 for score in importance.scores.values())
    unet = work_folder.load_unet("prune", TINY, work)
    left = [name for name, block in unet.temporal_blocks().items() if not block.is_pruned]
    assert tuple(left) == importance.kept()


def test_funnels_begin_as_the_best_of_their_width_and_end_merged(
    trained: tuple[Path, dict[str, list[TrainStep]]],
) -> None:
    work, _ = trained
    begun = work_folder.begin_unet("funnels", TINY, work)
    assert any(name.endswith(".funnel") for name in begun.state_dict())
    merged = work_folder.load_unet("funnels", TINY, work)
    assert not any(name.endswith(".funnel") for name in merged.state_dict())


def test_packaged_model_is_measured_opened_and_known_again(
    trained: tuple[Path, dict[str, list[TrainStep]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from mvsdk_export.distill.animator import recipe

    work, _ = trained
    monkeypatch.setitem(recipe.ANIMATOR_TRAININGS, "animator", TINY)
    monkeypatch.setattr(packaging, "BASE_STEPS", (2, 1))
    encoders: list[dict[str, Tensor]] = []

    def spy(encoder: torch.nn.Module, *rest: Any) -> Animate:
        encoders.append(encoder.state_dict())
        return animate_with(encoder, *rest)  # pyright: ignore

    monkeypatch.setattr(packaging, "animate_with", spy)
    done = packaging.package_animator(
        TINY, work, tmp_path / "model", pictures=6, features=coarse_features
    )
    folder = open_model(tmp_path / "model", find_recipe("animator"))
    shipped = folder.load("image_encoder").state_dict()
    same = [all(torch.equal(shipped[x], found[x]) for x in shipped) for found in encoders]
    assert same == [False] * 9 + [True], "only the last line is measured as it is shipped"
    assert not folder.load("unet").state_dict()["add_embedding.linear_1.weight"][:, :8].any()
    assert load_importance(folder.path / "importance.json").recipe == "animator"
    assert folder.scheduler == OneStepScheduler(sigma=700.0)
    assert folder.load("unet").config == work_folder.load_unet("funnels", TINY, work).config
    assert packaging.is_animator_packaged(TINY, work, tmp_path / "model")
    assert not packaging.is_animator_packaged(TINY, work, tmp_path / "other")

    rows = [row for row in done.quality.rows if row.held_out == "backgrounds"]
    assert [(row.source, row.is_finetuned, row.num_inference_steps) for row in rows] == [
        ("drawn", True, None),
        ("frozen", True, None),
        ("base", True, 2),
        ("base", True, 1),
        ("fold", True, 2),
        ("one_step", True, 1),
        ("frames", False, 1),
        ("frames", True, 1),
        ("prune", False, 1),
        ("prune", True, 1),
        ("funnels", False, 1),
        ("funnels", True, 1),
    ]
    base, folded = rows[2], rows[4]
    assert folded.quality.psnr_db_median == pytest.approx(base.quality.psnr_db_median, abs=0.05)
    costs = [row.flops for row in rows[5:] if row.is_finetuned]
    assert costs == sorted(costs, reverse=True)
    assert rows[0].quality.first_frame_psnr_db == pytest.approx(rows[1].quality.first_frame_psnr_db)

    document = json.loads((folder.path / "quality.json").read_text())
    assert packaging.read_animator_quality(folder).to_json() == document
    assert AnimatorQuality.from_json(document).to_json() == document
    with pytest.raises(TrainingError, match="no figures"):
        AnimatorQuality.from_json({"rows": [{}]})
    card = " ".join((folder.path / "README.md").read_text().split())
    assert TINY.command() in card
    assert "| funnels, begun | backgrounds | 1 |" in card
    assert all(
        words in card for words in ("importance.json", "noise on the picture from 0 to 0.05")
    )
    assert {row.held_out for row in done.quality.rows} <= {"backgrounds", "mirrorings", "training"}


def test_clip_is_what_the_graphs_of_a_phone_make(
    trained: tuple[Path, dict[str, list[TrainStep]]],
) -> None:
    work, _ = trained
    made = packaging.load_networks(TINY, work)
    clips = work_folder.read_clips(TINY, work)
    picture = clips.render([clips.sample_start(np.random.default_rng(5))])[:, 0]
    animate = animate_with(
        made.image_encoder,
        made.unet,
        made.autoencoder,
        lambda network, noise: edm.jump_down(network, noise, 700.0),
    )
    (ours,) = animate(picture, [127], [9])
    image = torch.from_numpy(picture).float() / 255
    noise = torch.from_numpy(initial_latents(9, (1, 3, SIZE, SIZE), stream=65536))
    with torch.no_grad():
        latents = OneStepGraph(made.unet)(
            torch.from_numpy(initial_latents(9, (FRAMES, 32, SIZE // 8, SIZE // 8))),
            ImageEncoderGraph(made.image_encoder, SIZE, SIZE)(image),
            FirstFrameGraph(made.autoencoder)(image, noise, torch.tensor([0.02])),
            torch.tensor([[7.0, 127.0, 0.02]]),
        )
        theirs = FrameDecoder(made.autoencoder)(latents) * 255
    assert np.abs(ours - theirs.numpy()).max() < 1.01


def test_ways_are_measured_of_subjects_that_look_somewhere() -> None:
    clips = arrows()
    starts = [start(), start(mirrored=True)]

    def draw(pictures: np.ndarray, buckets: Sequence[int], seeds: Sequence[int]) -> np.ndarray:
        del pictures
        return clips.render([replace(starts[i], bucket=b) for i, b in zip(seeds, buckets)])  # noqa: B905

    ways = measure_ways(draw, starts, clips, [0, 1])
    assert ways[0] == pytest.approx(0, abs=0.5)
    assert ways[127] == pytest.approx(64 * TRAVEL, abs=0.5)
    assert ways[255] == pytest.approx(128 * TRAVEL, abs=1.0)


def test_bank_of_other_clips_is_refused(
    trained: tuple[Path, dict[str, list[TrainStep]]],
) -> None:
    work, _ = trained
    bank = work_folder.load_clip_bank(TINY, work)
    clips, autoencoder = work_folder.read_clips(TINY, work), work_folder.load_autoencoder(TINY)
    with pytest.raises(TrainingError, match="bank of 70 clips"):
        check_clip_bank(bank, clips, autoencoder, count=70, seed=2)
    with pytest.raises(TrainingError, match="than the 71 clips"):
        check_clip_bank(bank, clips, autoencoder, count=71, seed=1)


def test_interrupted_stage_goes_on_to_the_same_losses(
    trained: tuple[Path, dict[str, list[TrainStep]]], tmp_path: Path
) -> None:
    work, steps = trained
    for name in ("data", "animator/latents", "animator/image_encoder", "animator/base"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(work / name)
    with closing(stages.run_stage("one_step", TINY, tmp_path)) as begun:
        found = losses_of([next(begun)])
    found += losses_of(run("one_step", tmp_path))
    assert found == losses_of(steps["one_step"])


def test_other_options_and_missing_stages_are_refused(
    trained: tuple[Path, dict[str, list[TrainStep]]], tmp_path: Path
) -> None:
    work, _ = trained
    other = replace(TINY.frames_options, learning_rate=0.5)
    with pytest.raises(TrainingError, match="learning_rate"):
        run("frames", work, replace(TINY, frames_options=other))
    with pytest.raises(TrainingError, match="--stage data --work"):
        run("base", tmp_path)


def _train(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    TRAIN.add_arguments(parser)
    return TRAIN.run(parser.parse_args([str(word) for word in argv]))


def test_command_trains_the_model_that_is_asked_for(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mvsdk_export.distill.animator import recipe

    monkeypatch.setitem(recipe.ANIMATOR_TRAININGS, "animator", TINY)
    assert _train("--model", "animator", "--stage", "data", "--work", data, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["stages"][0]["skipped"]) == ("animator", True)
    with pytest.raises(InputError, match="animator has no stage teacher"):
        _train("--model", "animator", "--stage", "teacher", "--work", data)
    with pytest.raises(InputError, match="sticker has no stage base"):
        _train("--stage", "base", "--work", data)
    with pytest.raises(TrainingError, match="'mobilevd' is not trained here"):
        _train("--model", "mobilevd", "--work", data)
