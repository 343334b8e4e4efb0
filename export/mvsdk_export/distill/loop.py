"""The training loop: one step at a time, resumable to the same loss curve after any interruption.

Nothing random outlives a step: the generators of step `n` are made from `(seed, n)`, so a resumed
run draws what the uninterrupted one would have drawn. State is kept in safetensors, never pickles.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)

LossFunction = Callable[[nn.Module, np.random.Generator, torch.Generator], Tensor]
"""(network, generator for data, generator for noise) -> scalar loss of one batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How long and how fast to train."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    """Decay of the weight average; the average warms up with the step number."""
    seed: int = 0
    save_every_s: float = 120.0
    """Seconds between checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """Progress of a run, handed to the caller after every step."""

    step: int
    steps: int
    loss: float
    """Mean loss over the steps since the last one handed out (1 step)."""
    elapsed_s: float


def train(
    network: nn.Module, loss: LossFunction, options: TrainOptions, folder: Path
) -> Iterator[TrainStep]:
    """Train a network in place; leave the averaged weights in it at the end.

    Args:
        network: Network to train. Holds the weight average once the iterator is exhausted.
        loss: Computes the loss of one batch.
        options: Length, batch size and optimiser.
        folder: Where `state.safetensors` is kept; a run found there is continued.

    Yields:
        Progress after each step; the caller owns display and cancellation.
    """
    optimizer = torch.optim.AdamW(
        _trained(network).values(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    average = {name: value.detach().clone() for name, value in _trained(network).items()}
    state = folder / "state.safetensors"
    first = _resume(state, network, optimizer, average, options) if state.exists() else 0
    network.train()
    started = saved = time.monotonic()
    for step in range(first, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _schedule(step, options)
        rng = np.random.default_rng([options.seed, step])
        noise = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        value = loss(network, rng, noise)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(_trained(network).values(), 1.0)
        optimizer.step()
        decay = min(options.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, parameter in _trained(network).items():
                average[name].lerp_(parameter, 1 - decay)
        now = time.monotonic()
        if now - saved > options.save_every_s or step + 1 == options.steps:
            _save(state, network, optimizer, average, step + 1, options)
            saved = now
        yield TrainStep(
            step=step + 1, steps=options.steps, loss=value.item(), elapsed_s=now - started
        )
    with torch.no_grad():
        for name, parameter in _trained(network).items():
            parameter.copy_(average[name])
    network.eval()


def load_average_(network: nn.Module, folder: Path) -> int:
    """Copy the weight average of a run, finished or not, into a network; return its step."""
    with safetensors.safe_open(folder / "state.safetensors", framework="pt") as file:
        with torch.no_grad():
            for name, parameter in _trained(network).items():
                parameter.copy_(file.get_tensor(f"average.{name}"))
        network.eval()
        return int(file.metadata()["step"])


def _trained(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def _schedule(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))


def _save(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
    options: TrainOptions,
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, parameter in _trained(network).items():
        tensors[f"network.{name}"] = parameter.detach()
        tensors[f"average.{name}"] = average[name]
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = optimizer.state[parameter][key]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    metadata = {"step": str(step), "options": json.dumps(asdict(options))}
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
    os.replace(temporary, path)
    logger.info("saved %s at step %d", path, step)


def _resume(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    options: TrainOptions,
) -> int:
    with safetensors.safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
        with torch.no_grad():
            for name, parameter in _trained(network).items():
                parameter.copy_(file.get_tensor(f"network.{name}"))
                average[name].copy_(file.get_tensor(f"average.{name}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": file.get_tensor(f"exp_avg.{name}"),
                    "exp_avg_sq": file.get_tensor(f"exp_avg_sq.{name}"),
                }
    logger.info("continuing %s at step %d of %d", path, step, options.steps)
    return step
