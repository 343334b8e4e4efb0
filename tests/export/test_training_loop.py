"""The loop of a training: interrupted runs go on to the same losses, others are refused."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra export")

import torch
import torch.nn.functional as F
from tiny_training import losses_of
from torch import Tensor, nn

from mvsdk_export.training.loop import STATE_FILE, load_average_, read_saved_run, train
from mvsdk_export.training.options import TrainingError, TrainOptions, TrainStep

OPTIONS = TrainOptions(steps=12, batch_size=4, learning_rate=0.05, warmup_steps=2, ema_decay=0.8)
DATA = "five balls"


class Line(nn.Module):
    """A line to fit, with an offset that is given."""

    def __init__(self, *, offset: float = 2.0, width: int = 3) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(width))
        self.offset = nn.Parameter(torch.tensor([offset]), requires_grad=False)


def line_loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    assert isinstance(network, Line)
    x = torch.from_numpy(rng.standard_normal((OPTIONS.batch_size, 3)).astype(np.float32))
    wanted = x @ torch.tensor([1.0, -2.0, 3.0]) + 2.0
    wanted = wanted + 0.1 * torch.randn(wanted.shape, generator=noise)
    return (x @ network.slope + network.offset - wanted).square().mean()


def _take(folder: Path, count: int | None = None, network: Line | None = None) -> list[float]:
    """Train a line for some steps, then close the iterator, as Ctrl-C in a caller does."""
    with closing(train(network or Line(), line_loss, OPTIONS, folder, data=DATA)) as steps:
        return losses_of(itertools.islice(steps, count))


def _follow(steps: Generator[TrainStep], losses: list[float], *, stop_at: int | None) -> None:
    """Take steps; raise KeyboardInterrupt where the iterator waits after step `stop_at`."""
    for step in steps:
        losses += losses_of([step])
        if step.step == stop_at:
            steps.throw(KeyboardInterrupt)


@pytest.mark.parametrize("where", ["while the loss is computed", "between two steps"])
def test_ctrl_c_loses_no_finished_step(tmp_path: Path, where: str) -> None:
    uninterrupted, resumed = Line(), Line()
    whole = _take(tmp_path / "whole", network=uninterrupted)

    def interrupted(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        if len(losses) == 4:
            raise KeyboardInterrupt
        return line_loss(network, rng, noise)

    losses: list[float] = []
    steps = train(Line(), interrupted, OPTIONS, tmp_path / "b", data=DATA)
    with pytest.raises(KeyboardInterrupt):
        _follow(steps, losses, stop_at=4 if where == "between two steps" else None)
    saved = read_saved_run(tmp_path / "b")
    assert saved is not None
    assert saved.step == 4
    assert losses + _take(tmp_path / "b", network=resumed) == whole
    assert torch.equal(resumed.slope, uninterrupted.slope)


class Blur(nn.Module):
    """A convolution and a bias to fit."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)


def blur_loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    assert isinstance(network, Blur)
    x = torch.from_numpy(rng.standard_normal((4, 2, 5, 5)).astype(np.float32))
    wanted = F.avg_pool2d(x, 3, stride=1, padding=1).repeat(1, 2, 1, 1)
    wanted = wanted + 0.1 * torch.randn(wanted.shape, generator=noise)
    return (network.conv(x) - wanted).square().mean()


def _take_blur(folder: Path, network: Blur, count: int | None = None) -> list[float]:
    options = replace(OPTIONS, matrix_rate=0.1, warmup_steps=1, weight_decay=0.0)
    run = train(network, blur_loss, options, folder, matrices=("conv.",))
    with closing(run) as steps:
        return losses_of(itertools.islice(steps, count))


def test_muon_turns_gradients_of_convolutions_and_goes_on_to_the_same_losses(
    tmp_path: Path,
) -> None:
    network = Blur()
    before = network.conv.weight.detach().clone()
    first = _take_blur(tmp_path / "parts", network, 1)
    change = (network.conv.weight.detach() - before).flatten(1)
    strengths = torch.linalg.svdvals(change) / 0.1
    assert 0.5 < strengths.min() < strengths.max() < 1.5, "no direction is left behind"
    whole = _take_blur(tmp_path / "whole", Blur())
    parts = (
        first + _take_blur(tmp_path / "parts", Blur(), 4) + _take_blur(tmp_path / "parts", Blur())
    )
    assert parts == whole
    assert whole[-1] < 0.5 * whole[0]


def test_ctrl_c_amid_an_update_keeps_the_last_whole_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _take(tmp_path / "whole")
    assert _take(tmp_path / "b", 3) == whole[:3]
    real_step, calls = torch.optim.AdamW.step, itertools.count()

    def step(self: torch.optim.AdamW, closure: None = None) -> None:
        real_step(self, closure)
        if next(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(KeyboardInterrupt):
            _take(tmp_path / "b")
    assert _take(tmp_path / "b") == whole[3:]


def test_average_is_loaded_with_what_is_not_trained(tmp_path: Path) -> None:
    trained, loaded = Line(offset=2.5), Line(offset=-1.0)
    _take(tmp_path, network=trained)
    loaded.slope.data.fill_(9.0)
    assert load_average_(loaded, tmp_path) == OPTIONS.steps
    assert torch.equal(loaded.slope, trained.slope)
    assert loaded.offset.item() == 2.5
    again = Line()
    list(train(again, line_loss, OPTIONS, tmp_path, data=DATA))
    assert torch.equal(again.slope, trained.slope), "a finished run gives its average"


def test_other_options_are_refused_and_named(tmp_path: Path) -> None:
    _take(tmp_path, 2)
    before = (tmp_path / STATE_FILE).read_bytes()
    for options, wanted in (
        (
            replace(OPTIONS, learning_rate=0.01),
            r"learning_rate 0\.05, got learning_rate 0\.01",
        ),
        (replace(OPTIONS, steps=20, seed=1), "steps 12, seed 0, got steps 20, seed 1"),
    ):
        with pytest.raises(TrainingError, match=wanted):
            next(iter(train(Line(), line_loss, options, tmp_path, data=DATA)))
    with pytest.raises(TrainingError, match="data five balls, got data six balls"):
        next(iter(train(Line(), line_loss, OPTIONS, tmp_path, data="six balls")))
    assert (tmp_path / STATE_FILE).read_bytes() == before
    often = replace(OPTIONS, save_every_s=1.0)
    assert next(iter(train(Line(), line_loss, often, tmp_path, data=DATA))).step == 3


def test_state_of_another_network_and_damaged_state_are_refused(tmp_path: Path) -> None:
    _take(tmp_path, 2)
    with pytest.raises(TrainingError, match=r"slope of shape \(3,\), this network has \(4,\)"):
        list(train(Line(width=4), line_loss, OPTIONS, tmp_path, data=DATA))
    with pytest.raises(TrainingError, match=r"lacks network\.weight"):
        list(train(nn.Linear(3, 1), line_loss, OPTIONS, tmp_path, data=DATA))
    state = tmp_path / STATE_FILE
    state.write_bytes(state.read_bytes()[:-7])
    with pytest.raises(TrainingError, match="remove it to train anew"):
        list(train(Line(), line_loss, OPTIONS, tmp_path, data=DATA))


def test_loss_that_is_not_finite_stops_the_run_and_spares_its_state(tmp_path: Path) -> None:
    _take(tmp_path, 2)
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(TrainingError, match="loss is nan at step 3"):
        list(
            train(
                Line(offset=2.0), lambda *a: line_loss(*a) * torch.nan, OPTIONS, tmp_path, data=DATA
            )
        )
    assert (tmp_path / STATE_FILE).read_bytes() == before
