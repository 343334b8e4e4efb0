"""Started by `torchrun` in test_workers.py: every process trains its share and says how it went."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_animator_training import draw_ramps, tiny_student
from tiny_training import losses_of, run_tiny_stage, write_tiny_data
from torch import Tensor, nn

from mvsdk_export.checkpoints import EDMScheduler
from mvsdk_export.training import plan
from mvsdk_export.training.loop import train
from mvsdk_export.training.methods.one_step import one_step_loss
from mvsdk_export.training.options import TrainOptions, TrainStep
from mvsdk_export.training.sticker.options import STAGES
from mvsdk_export.training.workers import Workers, joined


def main() -> None:
    """Train a line and a tiny model; write losses and hashes of weights, a file per process."""
    work = Path(sys.argv[1])
    with joined() as workers:
        if workers.is_first:
            write_tiny_data(work)
        workers.wait()
        whole, line = fit_line(work / "line", workers, [None])
        parts, again = fit_line(work / "again", workers, [3, 1, None])
        found = {
            "line": line.weight.tolist(),
            "again": again.weight.tolist(),
            "whole": whole,
            "parts": parts,
            "losses": {},
            "weights": {},
        }
        for stage in STAGES[:-1]:
            with recorded() as networks:
                found["losses"][stage] = losses_of(run_tiny_stage(stage, work, workers=workers))
            found["weights"][stage] = [digest(network) for network in networks]
        losses, student = finetune(work / "one_step", workers)
        found["one_step"] = losses
        found["student"] = digest(student)
        (work / f"found{workers.rank}.json").write_text(json.dumps(found))


def fit_line(
    folder: Path, workers: Workers, counts: Sequence[int | None]
) -> tuple[list[float], nn.Linear]:
    """Train a line to its end, interrupted after so many steps each time; return its losses."""
    losses: list[float] = []
    options = TrainOptions(steps=8, batch_size=4, learning_rate=0.1, ema_decay=0.5)
    line = nn.Linear(3, 1, bias=False)
    for count in counts:
        nn.init.zeros_(line.weight)
        with closing(train(line, line_loss, options, folder, workers=workers)) as steps:
            losses += losses_of(islice(steps, count))
        workers.wait()
    return losses, line


def finetune(folder: Path, workers: Workers) -> tuple[list[float], nn.Module]:
    """Finetune a small network of Stable Video Diffusion's family to one step."""
    backbone, student = tiny_student(keep=3)
    loss = one_step_loss(draw_ramps, backbone, scheduler=EDMScheduler())
    options = TrainOptions(steps=6, batch_size=8, learning_rate=1e-3, matrix_rate=1e-2)
    with closing(
        train(student, loss, options, folder, workers=workers, matrices=("unet.",))
    ) as steps:
        return losses_of(steps), student


@contextmanager
def recorded() -> Generator[list[nn.Module]]:
    """Note the networks that stages train, in this process."""
    networks: list[nn.Module] = []
    real = plan.train

    def note(network: nn.Module, *arguments: Any, **options: Any) -> Generator[TrainStep]:
        networks.append(network)
        return real(network, *arguments, **options)

    plan.train = note
    try:
        yield networks
    finally:
        plan.train = real


def digest(network: nn.Module) -> str:
    """Return a hash of all weights."""
    total = hashlib.sha256()
    for value in network.parameters():
        total.update(value.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


def line_loss(network: nn.Module, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
    """Return the error of a line on points that are other ones in every process."""
    del noise
    x = torch.from_numpy(rng.standard_normal((4, 3)).astype(np.float32))
    return (network(x)[:, 0] - x.sum(dim=1)).square().mean()


if __name__ == "__main__":
    main()
