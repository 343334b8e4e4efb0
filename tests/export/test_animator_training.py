"""The image-to-video model: its stages, from data to a model folder."""

from __future__ import annotations

import argparse
import json
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
from tiny_animator_training import FRAMES, TINY, write_tiny_sprites
from tiny_training import SIZE, coarse_features, losses_of
from torch import Tensor

from mvsdk.errors import InputError
from mvsdk.noise import initial_latents
from mvsdk_export.checkpoints import OneStepScheduler, open_model
from mvsdk_export.commands.train import TRAIN
from mvsdk_export.compress.importance import load_importance
from mvsdk_export.families import find_recipe
from mvsdk_export.families.autoencoder import FrameDecoder
from mvsdk_export.families.svd.graphs import FirstFrameGraph, ImageEncoderGraph, OneStepGraph
from mvsdk_export.training import plan as plans
from mvsdk_export.training.animator import losses, packaging, recipe
from mvsdk_export.training.animator.measures import Animate, animate_with
from mvsdk_export.training.animator.options import ANIMATOR_STAGES, CHAIN
from mvsdk_export.training.animator.plan import AnimatorTrainingPlan
from mvsdk_export.training.animator.quality import AnimatorQuality
from mvsdk_export.training.animator.recipe import AnimatorTraining
from mvsdk_export.training.methods import edm, one_step
from mvsdk_export.training.options import TrainingError, TrainStep

pytestmark = pytest.mark.torch


@dataclass(frozen=True)
class Trained:
    """A plan with every stage finished, and the steps on the way."""

    plan: AnimatorTrainingPlan
    steps: dict[str, list[TrainStep]]


def run(plan: AnimatorTrainingPlan, stage: str) -> list[TrainStep]:
    with closing(plan.run(stage)) as steps:
        return list(steps)


def with_recipe(trained: Trained, recipe: AnimatorTraining) -> AnimatorTrainingPlan:
    return AnimatorTrainingPlan(recipe, trained.plan.work)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> AnimatorTrainingPlan:
    """Return the stages in a work folder with sprites."""
    return write_tiny_sprites(tmp_path_factory.mktemp("animator"))


@pytest.fixture(scope="module")
def trained(begun: AnimatorTrainingPlan) -> Trained:
    """Return the same with every stage finished."""
    return Trained(begun, {stage: run(begun, stage) for stage in ANIMATOR_STAGES[:-1]})


def test_loss_falls_and_every_stage_goes_on_from_the_one_before(
    trained: Trained,
) -> None:
    plan, steps = trained.plan, trained.steps
    for stage in ("image_encoder", "base"):
        found = losses_of(steps[stage])
        assert sum(found[-5:]) < 0.9 * sum(found[:5])
    for stage in CHAIN:
        assert len(losses_of(steps[stage])) == 3
        assert run(plan, stage) == [], "it is finished"


def test_heads_begin_as_the_stage_before_left_them(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = trained.plan
    begun: list[one_step.OneStepStudent] = []

    def capture(network: one_step.OneStepStudent, *_: object, **__: object) -> list[TrainStep]:
        begun.append(network)
        return []

    monkeypatch.setattr(plans, "train", capture)
    for stage in CHAIN:
        assert list(plan.finetune(stage)) == []
    first, *others = (network.heads.state_dict() for network in begun)
    for before, heads in zip(CHAIN[:-1], others, strict=True):
        left = plan.load_student(before).heads.state_dict()
        torch.testing.assert_close(heads, left, rtol=0, atol=0)
        assert any(not torch.equal(first[name], heads[name]) for name in first), "they learn"


def test_finetuning_leaves_the_base_alone_and_lets_so_many_blocks_through(
    trained: Trained,
) -> None:
    plan = trained.plan
    base = plan.load_base()
    unet = plan.begin_unet("importance")
    student = plan.build_student("importance", unet)
    draw = losses.draw_conditions(plan.load_bank(), plan.load_autoencoder(), base, 2)
    loss = one_step.one_step_loss(draw, base.unet, scheduler=TINY.scheduler)
    for seed in range(3):
        loss(student, np.random.default_rng(seed), torch.Generator().manual_seed(seed)).backward()
        gates = [block.gate for block in unet.temporal_blocks().values()]
        assert sum(gate == 1 for gate in gates if gate is not None) == TINY.kept_blocks == 7
        assert sum(gate == 0 for gate in gates if gate is not None) == 24 - 7
    assert all(x.grad is None for x in base.parameters())
    learns = {name for name, x in student.named_parameters() if x.grad is not None and x.grad.any()}
    assert {"unet.conv_in.weight", "importance.scores", "heads.spatial.0.conv_in.weight"} <= learns


def test_chain_compresses_step_by_step(
    trained: Trained,
) -> None:
    plan = trained.plan
    found = {stage: plan.load_unet(stage).config for stage in ("base", *CHAIN)}
    assert found["base"] == TINY.unet
    assert found["one_step"] == replace(TINY.unet, folded_cross_attention=True)
    assert found["importance"] == found["frames"]
    assert found["frames"] == replace(found["one_step"], frame_levels=1)
    kept = found["prune"].temporal_blocks
    assert (len(kept), kept.count("1")) == (24, 7)
    assert found["funnels"] == replace(found["prune"], funnel_factor=0.5, funnel_layers="spatial")


def test_pruned_blocks_are_those_of_the_least_learned_importance(
    trained: Trained,
) -> None:
    plan = trained.plan
    importance = load_importance(plan.importance_file)
    assert importance.recipe == "animator"
    assert any(score != 0 for score in importance.scores.values())
    unet = plan.load_unet("prune")
    left = [name for name, block in unet.temporal_blocks().items() if not block.is_pruned]
    assert tuple(left) == importance.kept()


def test_funnels_begin_as_the_best_of_their_width_and_end_merged(
    trained: Trained,
) -> None:
    plan = trained.plan
    begun = plan.begin_unet("funnels")
    assert any(name.endswith(".funnel") for name in begun.state_dict())
    merged = plan.load_unet("funnels")
    assert not any(name.endswith(".funnel") for name in merged.state_dict())


def test_packaged_model_is_measured_opened_and_known_again(
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plan = trained.plan
    monkeypatch.setattr(recipe, "ANIMATOR_TRAINING", TINY)
    monkeypatch.setattr(packaging, "BASE_STEPS", (2, 1))
    encoders: list[dict[str, Tensor]] = []

    def spy(encoder: torch.nn.Module, *rest: Any) -> Animate:
        encoders.append(encoder.state_dict())
        return animate_with(encoder, *rest)  # pyright: ignore

    monkeypatch.setattr(packaging, "animate_with", spy)
    done = packaging.package(plan, tmp_path / "model", pictures=6, features=coarse_features)
    folder = open_model(tmp_path / "model", find_recipe("animator"))
    shipped = folder.load("image_encoder").state_dict()
    same = [all(torch.equal(shipped[x], found[x]) for x in shipped) for found in encoders]
    assert same == [False] * 9 + [True], "only the last line is measured as it is shipped"
    assert not folder.load("unet").state_dict()["add_embedding.linear_1.weight"][:, :8].any()
    assert load_importance(folder.path / "importance.json").recipe == "animator"
    assert folder.scheduler == OneStepScheduler(sigma=700.0)
    assert folder.load("unet").config == plan.load_unet("funnels").config
    assert packaging.is_packaged(plan, tmp_path / "model")
    assert not packaging.is_packaged(plan, tmp_path / "other")

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
    assert packaging.read_quality(folder).to_json() == document
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
    trained: Trained,
) -> None:
    plan = trained.plan
    made = packaging.load_networks(plan)
    clips = plan.read_clips()
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


def test_bank_of_other_clips_is_refused(trained: Trained) -> None:
    for other, message in (
        (replace(TINY, bank_seed=2), "bank of 70 clips"),
        (replace(TINY, bank_clips=71), "than the 71 clips"),
    ):
        with pytest.raises(TrainingError, match=message):
            with_recipe(trained, other).load_bank()


def test_interrupted_stage_goes_on_to_the_same_losses(trained: Trained, tmp_path: Path) -> None:
    for name in ("data", *(AnimatorTrainingPlan.places[x] for x in ANIMATOR_STAGES[1:4])):
        shutil.copytree(trained.plan.work / name, tmp_path / name)
    plan = AnimatorTrainingPlan(TINY, tmp_path)
    with closing(plan.run("one_step")) as begun:
        found = losses_of([next(begun)])
    found += losses_of(run(plan, "one_step"))
    assert found == losses_of(trained.steps["one_step"])


def test_what_was_made_from_a_network_that_was_trained_anew_is_refused(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.plan.work, tmp_path, dirs_exist_ok=True)
    other = replace(TINY, base_options=replace(TINY.base_options, steps=31))
    plan = AnimatorTrainingPlan(other, tmp_path)
    shutil.rmtree(plan.place("base"))
    run(plan, "base")
    with pytest.raises(TrainingError, match=r"one_step/state\.safetensors is of a run with"):
        run(plan, "one_step")
    with pytest.raises(TrainingError, match=r"one_step/state\.safetensors is of a run with"):
        plan.check_needs("package")


def test_importance_that_was_not_written_down_is_written_without_training(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.plan.work, tmp_path, dirs_exist_ok=True)
    plan = AnimatorTrainingPlan(TINY, tmp_path)
    before = plan.importance_file.read_bytes()
    plan.importance_file.unlink()
    with pytest.raises(TrainingError, match="needs importance, which is not finished"):
        run(plan, "prune")
    assert run(plan, "importance") == []
    assert plan.importance_file.read_bytes() == before


def test_other_options_and_missing_stages_are_refused(trained: Trained, tmp_path: Path) -> None:
    other = replace(TINY.frames_options, learning_rate=0.5)
    with pytest.raises(TrainingError, match="learning_rate"):
        run(with_recipe(trained, replace(TINY, frames_options=other)), "frames")
    with pytest.raises(TrainingError, match="--stage data --work"):
        run(AnimatorTrainingPlan(TINY, tmp_path), "base")


def _train(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    TRAIN.add_arguments(parser)
    return TRAIN.run(parser.parse_args([str(word) for word in argv]))


def test_command_trains_the_model_that_is_asked_for(
    begun: AnimatorTrainingPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "ANIMATOR_TRAINING", TINY)
    assert _train("--model", "animator", "--stage", "data", "--work", begun.work, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["stages"][0]["skipped"]) == ("animator", True)
    with pytest.raises(InputError, match="animator has no stage teacher"):
        _train("--model", "animator", "--stage", "teacher", "--work", begun.work)
    with pytest.raises(InputError, match="sticker has no stage base"):
        _train("--stage", "base", "--work", begun.work)
    with pytest.raises(TrainingError, match="'mobilevd' is not trained here"):
        _train("--model", "mobilevd", "--work", begun.work)
