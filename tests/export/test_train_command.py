"""`mvsdk train`: stages in order, Ctrl-C, and what is refused before hours are spent."""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from mvsdk import _staging
from mvsdk._installed import toolchain_install
from mvsdk.errors import InputError, MvsdkError, OutputError
from mvsdk_export import extras
from mvsdk_export.commands.train import TRAIN
from mvsdk_export.errors import ExportError


def _train(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    TRAIN.add_arguments(parser)
    return TRAIN.run(parser.parse_args([str(word) for word in argv]))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a work folder with data, for a recipe of seconds."""
    pytest.importorskip("torch", reason="needs the extra export")
    from tiny_training import TINY, write_tiny_data

    from mvsdk_export.training.sticker import recipe

    tiny = replace(TINY, autoencoder_options=replace(TINY.autoencoder_options, steps=6))
    monkeypatch.setattr(recipe, "STICKER_TRAINING", tiny)
    write_tiny_data(tmp_path / "work", tiny)
    return tmp_path / "work"


def test_stage_reports_its_loss_and_is_skipped_when_run_again(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("--stage", "autoencoder", "--work", work, "--json")
    assert _train(*command) == 0
    first = capsys.readouterr()
    (stage,) = json.loads(first.out)["stages"]
    assert (stage["stage"], stage["skipped"], stage["step"]) == ("autoencoder", False, 6)
    assert stage["loss"] > 0
    assert "loss=" in first.err
    assert _train(*command) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert stage["skipped"] is True


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvsdk_export.commands import train

    follow = train._StageReport.follow

    def interrupt(report: train._StageReport, step: train.TrainStep) -> None:
        follow(report, step)
        if step.step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train._StageReport, "follow", interrupt)
        assert _train("--stage", "autoencoder", "--work", work) == 130
    assert "step 4 of 6 is kept" in (said := capsys.readouterr().err)
    assert "run the same command again" in said
    assert _train("--stage", "autoencoder", "--work", work, "--json") == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["step"] == 6


def test_stage_out_of_turn_is_refused_with_the_command_to_type_and_makes_no_folder(
    work: Path,
) -> None:
    new = work / "new"
    wanted = r"needs data, .* run mvsdk train --model sticker .*--subjects 1 .*--stage data --work "
    for stage in ("teacher", "package"):
        with pytest.raises(MvsdkError, match=wanted):
            _train("--stage", stage, "--work", new, "--subjects", "1")
    assert not new.exists()


def test_measuring_again_is_asked_for_by_overwriting(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvsdk_export.training.plan import TrainingPlan
    from mvsdk_export.training.sticker import packaging

    monkeypatch.setattr(packaging, "is_packaged", lambda *_: True)
    packaged: list[Path] = []

    def note(_plan: object, out: Path, *, overwrite: bool) -> NoReturn:
        assert overwrite
        packaged.append(out)
        raise MvsdkError("measured")

    monkeypatch.setattr(packaging, "package", note)
    monkeypatch.setattr(TrainingPlan, "check_needs", lambda *_: None)
    with pytest.raises(MvsdkError, match="measured"):
        _train("--stage", "package", "--work", work, "--out", tmp_path / "m", "--overwrite")
    assert packaged == [tmp_path / "m"]


def test_changed_steps_are_used_and_then_refused(work: Path) -> None:
    assert _train("--stage", "autoencoder", "--work", work, "--steps", "2") == 0
    with pytest.raises(MvsdkError, match="run with steps 2, got steps 3"):
        _train("--stage", "autoencoder", "--work", work, "--steps", "3")


def test_model_folder_that_exists_is_refused_before_anything_is_trained(
    work: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    with pytest.raises(OutputError, match="add --overwrite"):
        _train("--work", work, "--out", tmp_path / "model")
    assert [path.name for path in work.iterdir()] == ["data"]


def test_work_folder_of_a_living_training_is_left_alone(work: Path) -> None:
    lock = _staging.lock_folder(work)
    assert lock is not None
    with pytest.raises(InputError, match=r"another mvsdk train works in .*; wait for it"):
        _train("--stage", "autoencoder", "--work", work)
    os.close(lock)
    assert [path.name for path in work.iterdir()] == ["data"]


def test_work_folder_that_cannot_be_made_is_one_line(work: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MvsdkError) as caught:
        _train("--stage", "autoencoder", "--work", tmp_path / "file" / "work")
    assert "\n" not in str(caught.value)


def test_missing_extra_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=re.escape(toolchain_install("train"))):
        _train("--stage", "data")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--steps", "0"), "--steps is 0; allowed: 1 to"),
        (("--steps", "-3"), "--steps is -3"),
        (("--subjects", "0"), "--subjects is 0"),
        (("--seed", "-1"), "--seed is -1; allowed: 0 to 4294967295"),
    ],
)
def test_numbers_out_of_range_are_refused(argv: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _train(*argv)


def test_unknown_model_is_refused() -> None:
    with pytest.raises(ExportError, match="unknown model 'wan'"):
        _train("--model", "wan")
