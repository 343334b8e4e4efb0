"""Started by `torchrun` in test_workers.py: every process trains its share and says how it went."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_training import TINY, WordTeacher, losses_of, write_tiny_data
from torch import Tensor, nn

from mvsdk_export.distill import stages
from mvsdk_export.distill.loop import train
from mvsdk_export.distill.options import STAGES, Stage, TrainOptions, TrainStep
from mvsdk_export.distill.workers import Workers, joined


def main() -> None:
    """Train a line and a tiny model; write losses and hashes of weights, a file per process."""
    work = Path(sys.argv[1])
    with joined() as workers:
        if workers.is_first:
            write_tiny_data(work)
        workers.wait()
        line = nn.Linear(3, 1)
        nn.init.zeros_(line.weight)
        options = TrainOptions(steps=8, batch_size=4, learning_rate=0.1, ema_decay=0.5)
        list(train(line, line_loss, options, work / "line", workers=workers))
        found = {"line": line.weight.tolist(), "losses": {}, "weights": {}}
        for stage in STAGES[:-1]:
            with recorded() as networks:
                found["losses"][stage] = run(stage, work, workers)
            found["weights"][stage] = [digest(network) for network in networks]
        (work / f"found{workers.rank}.json").write_text(json.dumps(found))


@contextmanager
def recorded() -> Generator[list[nn.Module]]:
    """Note the networks that stages train, in this process."""
    networks: list[nn.Module] = []
    real = stages.train

    def note(network: nn.Module, *arguments: Any, **options: Any) -> Generator[TrainStep]:
        networks.append(network)
        return real(network, *arguments, **options)

    stages.train = note
    try:
        yield networks
    finally:
        stages.train = real


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


def run(stage: Stage, work: Path, workers: Workers) -> list[float]:
    """Run a stage to its end, the text encoder with a made-up teacher; return its losses."""
    if stage == "text_encoder":
        teacher = WordTeacher(network=None, tokenizer=None)
        return losses_of(stages.train_text_encoder(TINY, work, workers, teacher=teacher))
    with closing(stages.run_stage(stage, TINY, work, workers=workers)) as steps:
        return losses_of(steps)


if __name__ == "__main__":
    main()
