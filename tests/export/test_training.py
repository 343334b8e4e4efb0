"""Training of sticker: losses that fall, stages that go on, a model folder at the end."""

from __future__ import annotations

import itertools
import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
from tiny_training import (
    TINY,
    TinyTrainingPlan,
    WordTeacher,
    coarse_features,
    losses_of,
    run_tiny_stage,
    write_tiny_data,
)
from torch import nn

from mvsdk.errors import OutputError
from mvsdk_export.checkpoints import open_model
from mvsdk_export.families import find_recipe
from mvsdk_export.families.autoencoder import Autoencoder
from mvsdk_export.families.sticker.transformer import SpatioTemporalTransformer
from mvsdk_export.training.data.banks import BANK_BATCH, read_bank, save_bank
from mvsdk_export.training.data.captions import BACKGROUNDS
from mvsdk_export.training.data.clips import CHANCES
from mvsdk_export.training.loop import (
    LossFunction,
)
from mvsdk_export.training.measures import decode_latents, psnr_db_of
from mvsdk_export.training.methods.autoencoder import autoencoder_loss, fit_encoder_
from mvsdk_export.training.options import (
    TrainingError,
)
from mvsdk_export.training.sticker import text_encoder
from mvsdk_export.training.sticker.bank import LatentBank
from mvsdk_export.training.sticker.choices import chosen_background, read_choices
from mvsdk_export.training.sticker.denoiser import denoiser_loss, draw_batch
from mvsdk_export.training.sticker.measures import generate_with
from mvsdk_export.training.sticker.options import STAGES, Stage
from mvsdk_export.training.sticker.packaging import is_packaged, package, read_quality
from mvsdk_export.training.sticker.plan import StickerTrainingPlan, save_vocabulary
from mvsdk_export.training.sticker.recipe import StickerTraining
from mvsdk_export.training.sticker.text_encoder import (
    Distillation,
    Teacher,
    draw_names,
    draw_texts,
    other_words,
    whole_words,
)


@dataclass(frozen=True)
class Run:
    """A work folder with every stage finished, and the losses on the way."""

    plan: StickerTrainingPlan
    losses: dict[Stage, list[float]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    work = tmp_path_factory.mktemp("work")
    write_tiny_data(work)
    return Run(
        TinyTrainingPlan(TINY, work),
        {stage: losses_of(run_tiny_stage(stage, work)) for stage in STAGES[1:-1]},
    )


def _loss_on_one_batch(loss: LossFunction, network: nn.Module) -> float:
    with torch.no_grad():
        noise = torch.Generator().manual_seed(7)
        return loss(network, np.random.default_rng(7), noise).item()


def test_loss_of_the_autoencoder_falls(run: Run) -> None:
    options = TINY.options("autoencoder")
    clips, _ = run.plan.read_autoencoder_clips()
    loss = autoencoder_loss(clips, 64)
    fresh = Autoencoder(TINY.autoencoder)
    fit_encoder_(fresh, clips)
    trained = _loss_on_one_batch(loss, run.plan.load_autoencoder())
    assert trained < 0.99 * _loss_on_one_batch(loss, fresh)
    assert len(run.losses["autoencoder"]) == options.steps


def test_loss_of_the_denoiser_falls(run: Run) -> None:
    options = TINY.options("teacher")
    clips, bank = run.plan.read_clips(), run.plan.load_bank()
    loss = denoiser_loss(bank, clips, run.plan.load_tokenizer(), 64)
    before = run.plan.load_text_denoiser("draft")
    after = run.plan.load_text_denoiser("teacher")
    assert _loss_on_one_batch(loss, after) < 0.95 * _loss_on_one_batch(loss, before)
    assert len(run.losses["teacher"]) == options.steps


@pytest.mark.parametrize(
    "stage", ["autoencoder", "text_encoder", "draft", "teacher", "distillation", "adversarial"]
)
def test_closed_run_goes_on_to_the_same_losses_to_the_bit(
    run: Run, tmp_path: Path, stage: Stage
) -> None:
    needed = {"data", "latents", *StickerTrainingPlan.places.values()} - {
        StickerTrainingPlan.places[stage]
    }
    for folder in needed:
        shutil.copytree(run.plan.work / folder, tmp_path / folder)
    losses: list[float] = []
    for count in (5, 1, 4):
        with closing(TinyTrainingPlan(TINY, tmp_path).run(stage)) as steps:
            losses += losses_of(itertools.islice(steps, count))
    assert losses == run.losses[stage][:10]


def test_latents_are_read_back_as_they_were_encoded(run: Run, tmp_path: Path) -> None:
    strided = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.float16).reshape(2, 3, 5, 6, 4)
    part = LatentBank(
        latents=strided.transpose(0, 1, 4, 2, 3),
        scenes=np.zeros((2, 5), np.int64),
        chances=np.zeros((2, CHANCES), np.float32),
    )
    assert not part.latents.flags.c_contiguous
    save_bank([part, part], tmp_path / "bank.safetensors")
    np.testing.assert_array_equal(
        read_bank(LatentBank, tmp_path / "bank.safetensors").latents,
        np.concatenate([part.latents] * 2),
    )
    bank = run.plan.load_bank()
    parts = list(run.plan.draw_bank())
    assert [len(part.scenes) for part in parts] == [BANK_BATCH, TINY.bank_clips - BANK_BATCH]
    np.testing.assert_array_equal(bank.latents, np.concatenate([x.latents for x in parts]))


def test_decoded_latents_show_their_scenes(run: Run) -> None:
    clips, autoencoder = run.plan.read_clips(), run.plan.load_autoencoder()
    bank = run.plan.load_bank()
    decoded = decode_latents(autoencoder, bank.latents[:8].astype(np.float32))
    own = [
        psnr_db_of(
            clip,
            clips.render(
                [bank.scene(i)],
                np.random.default_rng(0),
                bank.chances[i : i + 1].astype(np.float64),
            )[0],
        )
        for i, clip in enumerate(decoded)
    ]
    others = [psnr_db_of(clip, decoded[i - 1]) for i, clip in enumerate(decoded)]
    assert np.median(own) > 17.0
    assert np.median(own) > np.median(others) + 5.0


@pytest.mark.parametrize(
    "other",
    [
        replace(TINY, bank_seed=2),
        replace(TINY, bank_clips=71),
        replace(TINY, clips=replace(TINY.clips, travel=0.2)),
        replace(TINY, clips=replace(TINY.clips, scale=0.5)),
    ],
    ids=["seed", "count", "travel", "scale"],
)
def test_latents_of_another_recipe_are_refused(run: Run, other: StickerTraining) -> None:
    with pytest.raises(TrainingError, match="choose another work folder"):
        StickerTrainingPlan(other, run.plan.work).load_bank()


def test_finished_stages_are_skipped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Teacher:
        pytest.fail("the teacher was loaded")

    monkeypatch.setattr(Teacher, "load", staticmethod(refuse))
    files = [path for path in run.plan.work.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    for stage in STAGES[:-1]:
        assert list(StickerTrainingPlan(TINY, run.plan.work).run(stage)) == []
    after = {path: path.stat().st_mtime_ns for path in run.plan.work.rglob("*") if path.is_file()}
    assert after == before


def test_stage_names_the_one_that_must_come_first(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"needs data, .* --stage data --work "):
        list(StickerTrainingPlan(TINY, tmp_path).run("teacher"))
    shutil.copytree(run.plan.work / "data", tmp_path / "data")
    with closing(StickerTrainingPlan(TINY, tmp_path).run("autoencoder")) as steps:
        next(steps)
    with pytest.raises(TrainingError, match="needs autoencoder, which is not finished"):
        list(StickerTrainingPlan(TINY, tmp_path).run("latents"))


def test_stage_with_other_options_is_refused(run: Run) -> None:
    other = TINY.changed(steps=50)
    with pytest.raises(TrainingError, match="steps 40, got steps 50"):
        list(StickerTrainingPlan(other, run.plan.work).run("teacher"))


def test_other_words_in_the_vocabulary_are_refused(run: Run, tmp_path: Path) -> None:
    path = shutil.copy(run.plan.vocabulary_file, tmp_path / "vocab.json")
    with pytest.raises(TrainingError, match="other words"):
        save_vocabulary(["[PAD]", "[UNK]"], Path(path))


def test_package_is_a_model_folder_with_a_measured_card(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert not is_packaged(run.plan, out)
    done = package(run.plan, out, prompts=4, features=coarse_features)
    folder = open_model(out, find_recipe("sticker"))
    average = run.plan.load_networks().denoiser.state_dict()
    for name, value in folder.load("transformer").state_dict().items():
        assert torch.equal(value, average[name].half().float())
    assert folder.vocabulary.to_bytes() == run.plan.vocabulary_file.read_bytes()
    card = (out / "README.md").read_text()
    assert "disc, arrow" in card
    assert f"{done.quality.autoencoder_psnr_db:.1f} dB on fresh clips" in card
    assert read_quality(folder).to_json() == done.quality.to_json()
    assert f"{done.quality.rows[1].quality.psnr_db_median:.1f}" in card
    assert "mvsdk train --model sticker --steps 80 --subjects 2" in card
    assert max(len(line) for line in card.splitlines() if not line.startswith("|")) <= 100
    assert is_packaged(run.plan, out)
    with pytest.raises(OutputError, match="--overwrite"):
        package(run.plan, out, prompts=4, features=coarse_features)


def test_student_starts_from_the_teacher_and_goes_on(run: Run) -> None:
    teacher, distilled, finetuned = (
        run.plan.load_networks(stage).denoiser
        for stage in ("teacher", "distillation", "adversarial")
    )
    fresh = SpatioTemporalTransformer(TINY.denoiser)

    def distance(a: nn.Module, b: nn.Module) -> float:
        pairs = zip(a.parameters(), b.parameters(), strict=True)
        return sum((x - y).detach().square().sum().item() for x, y in pairs)

    assert 0.0 < distance(teacher, distilled) < 0.1 * distance(teacher, fresh)
    assert 0.0 < distance(distilled, finetuned) < 0.1 * distance(teacher, fresh)


def test_of_the_text_encoder_only_the_pictures_of_its_memory_go_on_learning(run: Run) -> None:
    distilled = run.plan.load_distilled_text_encoder().state_dict()
    shipped = run.plan.load_networks().text_encoder.state_dict()
    changed = [name for name, value in shipped.items() if not torch.equal(value, distilled[name])]
    assert changed == ["memory.table.weight"]


def test_clips_are_measured_as_the_scheduler_says(run: Run) -> None:
    networks = run.plan.load_networks()
    even, shifted = (
        generate_with(networks, replace(TINY.scheduler, shift=shift), size=TINY.clips.size)
        for shift in (1.0, 3.0)
    )
    ask = (["a disc on red", "an arrow"], [1, 2])
    assert np.array_equal(even(*ask, 1), shifted(*ask, 1)), "one step has one level"
    assert not np.array_equal(even(*ask, 4), shifted(*ask, 4))


def test_texts_of_nobody_hold_no_word_of_a_caption(run: Run) -> None:
    clips, rng = run.plan.read_clips(), np.random.default_rng(0)
    words = ["zonk", "plugh", "xyzzy"]
    texts, scenes, attributes = draw_names(clips, words, 12, rng, 600)
    nobody = [text for text, scene in zip(texts, scenes, strict=True) if scene[0] < 0]
    assert 5 < len(nobody) < 40
    assert {word for text in nobody for word in text.split()} == set(words)
    assert (scenes[scenes[:, 0] < 0] == -1).all()
    assert (attributes[scenes[:, 0] < 0] == [0, 0, len(BACKGROUNDS)]).all()
    named = [text for text, scene in zip(texts, scenes, strict=True) if scene[0] >= 0]
    assert all(any(x in text for x in ("disc", "arrow")) for text in named)


def test_parts_of_names_mean_something(run: Run) -> None:
    clips = run.plan.read_clips()
    first, *rest = clips.sprites.subjects
    named = (replace(first, noun="t-rex"), *rest)
    clips = replace(clips, sprites=replace(clips.sprites, subjects=named))
    assert other_words(clips, ["t", "rex", "zonk", "left", "backdrop"]) == ["zonk"]


def test_text_encoder_learns_that_no_caption_names_nobody(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.Tensor] = []

    def names_loss(logits: torch.Tensor, subjects: torch.Tensor) -> torch.Tensor:
        asked.append(torch.cat([logits.argmax(dim=2), subjects], dim=1))
        return logits.sum() * 0.0

    monkeypatch.setattr(text_encoder, "names_loss", names_loss)
    clips, tokenizer = (
        run.plan.read_clips(),
        run.plan.load_tokenizer(),
    )
    encoder = run.plan.load_distilled_text_encoder()
    teacher = WordTeacher(network=None, tokenizer=None)
    loss = text_encoder.words_loss(teacher, tokenizer, clips, ["big grin"], 4)
    loss(Distillation(encoder), np.random.default_rng(0), torch.Generator().manual_seed(0))
    nobody = len(clips.sprites.subjects)
    assert len(asked[0]) == 5, "four captions, and none"
    assert asked[0][-1, 2:].tolist() == [nobody, nobody]
    assert encoder.memory is not None
    silent = encoder.encode(torch.zeros(1, TINY.text_encoder.max_length, dtype=torch.int32))
    assert asked[0][-1, :2].tolist() == encoder.memory.find(silent).argmax(dim=2)[0].tolist()


def test_texts_to_compare_hold_every_word_in_no_order(run: Run) -> None:
    clips, rng = run.plan.read_clips(), np.random.default_rng(0)
    phrases, tokenizer = ["big grin", "smile"], run.plan.load_tokenizer()
    words = whole_words(clips, phrases, tokenizer)
    assert {"grin", "disc", "leftwards", "backdrop"} <= set(words)
    texts = draw_texts(clips, phrases, words, 12, rng, 1500)
    assert set(words) <= {word for text in texts for word in text.split()}


def test_nobody_is_drawn_as_nothing(run: Run) -> None:
    network = run.plan.load_text_denoiser("draft")
    memory, pictures = network.text_encoder.memory, network.denoiser.pictures
    assert memory is not None
    assert pictures is not None
    width = TINY.text_encoder.hidden_size
    with torch.no_grad():
        drawn = pictures.decode_codes(memory.table.weight[:-width].T)
    cover = drawn.reshape(len(memory.table.weight.T), -1, 4, *drawn.shape[2:])[:, :, 3]
    strongest = cover.abs().amax(dim=(1, 2, 3))
    assert strongest[-1] < 0.2 < 0.5 < strongest[:-1].min()


def test_clips_without_a_caption_take_their_colour_from_the_noise(run: Run) -> None:
    bank, clips = run.plan.load_bank(), run.plan.read_clips()
    tokenizer = run.plan.load_tokenizer()
    for share in (0.0, 1.0):
        rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
        batch = draw_batch(bank, clips, tokenizer, 64, rng, noise, silent_share=share)
        chosen = [chosen_background(x) for x in read_choices(batch.start)[:, 0].tolist()]
        shown = [bank.scene(int(i)).background for i in batch.chosen]
        same = np.mean([a == b for a, b in zip(chosen, shown, strict=True)])
        assert batch.is_silent.all() if share else not batch.is_silent.any()
        assert (batch.input_ids == 0).all() if share else (batch.input_ids != 0).any(dim=1).all()
        assert same == 1.0 if share else 0.1 < same < 0.6


def test_stages_of_other_subjects_are_refused(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.plan.work, tmp_path, dirs_exist_ok=True)
    other = replace(TINY, subjects=TINY.chosen_subjects()[::-1])
    write_tiny_data(tmp_path, other)
    with pytest.raises(TrainingError, match=r"data 2 subjects \(sprites-\w+\), got data 2"):
        list(StickerTrainingPlan(other, tmp_path).run("autoencoder"))
    shutil.rmtree(tmp_path / "teacher")
    with pytest.raises(TrainingError, match=r"vae/state.safetensors is of a run with data 2"):
        list(StickerTrainingPlan(other, tmp_path).run("teacher"))
