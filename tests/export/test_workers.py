"""Training by several processes: one model, whoever computed its share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra export")

from tiny_training import TINY

from mvsdk_export.training.options import TrainingError
from mvsdk_export.training.sticker.plan import StickerTrainingPlan
from mvsdk_export.training.workers import Workers, joined

pytestmark = pytest.mark.torch

SCRIPT = Path(__file__).with_name("two_workers.py")


def test_one_process_has_the_whole_batch_and_shares_must_be_even() -> None:
    assert Workers().share(6) == 6
    assert Workers(rank=1, count=3).share(6) == 2
    with pytest.raises(TrainingError, match="batch of 6 among 4 processes"):
        Workers(count=4).share(6)
    assert Workers(rank=0, count=2).seeds(5, 7) != Workers(rank=1, count=2).seeds(5, 7)


def test_environment_of_torchrun_that_is_incomplete_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match="torchrun --nproc-per-node"), joined():
        pytest.fail("joined nobody")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(SCRIPT), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"found{rank}.json").read_text()) for rank in (0, 1))
    assert first["line"] == second["line"], "gradients are averaged, whoever saw which points"
    assert first["parts"] == first["whole"], "interrupted runs go on to the same losses"
    assert second["parts"] == second["whole"]
    assert first["again"] == second["again"] == first["line"]
    plan = StickerTrainingPlan(TINY, tmp_path)
    for stage in TINY.trained_stages:
        assert len(first["losses"][stage]) == TINY.options(stage).steps
        assert len(first["weights"][stage]) == 1
        assert first["weights"][stage] == second["weights"][stage]
        assert plan.is_finished(stage)
    assert len(first["one_step"]) == 6
    assert first["student"] == second["student"]
    draft = first["losses"]["draft"]
    assert sum(draft[-5:]) < 0.9 * sum(draft[:5])
    assert plan.load_networks().denoiser.config == TINY.denoiser
