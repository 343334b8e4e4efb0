"""The training loop: one step at a time, resumable to the same loss curve after any interruption.

Nothing random outlives a step: the generators of step `n` are made from `(seed, n)`, and from the
rank where several processes train, so a run that as many of them resume draws what the
uninterrupted one would have drawn. State is kept in safetensors, never pickles.

Under `torchrun` every process takes its share of each batch, and gradients are averaged
(`workers.py`); the first one writes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mvsdk._staging import replacing
from mvsdk_export.training.optimizers import Optimizers
from mvsdk_export.training.options import TrainingError, TrainOptions, TrainStep
from mvsdk_export.training.workers import Workers

logger = logging.getLogger(__name__)

LossFunction = Callable[[nn.Module, np.random.Generator, torch.Generator], Tensor]
"""(network, generator for data, generator for noise) -> scalar loss of one batch."""

STATE_FILE = "state.safetensors"


def train(
    network: nn.Module,
    loss: LossFunction,
    options: TrainOptions,
    folder: Path,
    *,
    data: str = "",
    workers: Workers | None = None,
    rates: Mapping[str, float] | None = None,
    matrices: Sequence[str] = (),
) -> Generator[TrainStep]:
    """Train a network in place; leave the averaged weights in it at the end.

    The state is saved from time to time, at the end, and when the run is interrupted: by closing
    the iterator or by KeyboardInterrupt. Close it (`contextlib.closing`) to be sure of that.

    Args:
        network: Network to train. Holds the weight average once the iterator is exhausted.
        loss: Computes the loss of one batch.
        options: Length, batch size and optimiser.
        folder: Where `state.safetensors` is kept; a run found there is continued.
        data: Names what the loss draws from; a run is not continued with other data, nor one of
            named data without.
        workers: Processes that train together; None for this one alone.
        rates: Start of parameter names -> factor of their learning rate; 1 for all others.
        matrices: Starts of the names of parameters whose matrices Muon trains, if the options have
            a rate for it.

    Yields:
        Progress after each step; the caller owns display and cancellation.

    Raises:
        TrainingError: If the state in `folder` is damaged or of a run with other options or data or
            another network, or if the loss is not finite.
    """
    optimizers = Optimizers(
        _trained(network),
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        rates=rates or {},
        matrix_rate=options.matrix_rate,
        matrices=matrices,
    )
    run = _Run(network, loss, optimizers, options, data, folder, workers or Workers())
    run.resume_()
    network.train()
    started = saved = time.monotonic()
    try:
        while run.step < options.steps:
            value = run.advance_()
            now = time.monotonic()
            if now - saved > options.save_every_s or run.step == options.steps:
                run.save()
                saved = now
            yield TrainStep(step=run.step, steps=options.steps, loss=value, elapsed_s=now - started)
    except (KeyboardInterrupt, GeneratorExit, RuntimeError, TrainingError):
        # Of several processes another one may have been interrupted, in the middle of a step.
        if run.is_whole and run.step > run.saved_step:
            run.save()
        raise
    run.take_average_()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """How far the run of a folder has come."""

    step: int
    options: TrainOptions
    data: str
    digest: str
    """Of the averaged weights; of a run that is not finished, of nothing."""

    @property
    def is_finished(self) -> bool:
        """Whether no step is left to do."""
        return self.step >= self.options.steps


def read_saved_run(folder: Path) -> SavedRun | None:
    """Read how far a run has come; None if there is none.

    Raises:
        TrainingError: If the state is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        if not {"data", "digest"} <= metadata.keys():
            raise TrainingError(
                f"{path} is of an older mvsdk, which recorded less of it; remove it to train anew, "
                "or choose another work folder"
            )
        options = TrainOptions(**json.loads(metadata["options"]))
        return SavedRun(
            step=int(metadata["step"]),
            options=options,
            data=metadata["data"],
            digest=metadata["digest"],
        )
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; remove it to train anew") from exc


def check_same_run(saved: SavedRun, options: TrainOptions, data: str, folder: Path) -> None:
    """Check that a saved run can be continued with these options and these data.

    Raises:
        TrainingError: If the data or a field other than `save_every_s` differ.
    """
    theirs = {**asdict(saved.options), "data": saved.data}
    same = replace(options, save_every_s=saved.options.save_every_s)
    ours = {**asdict(same), "data": data}
    differing = [name for name, value in ours.items() if theirs[name] != value]
    if differing:
        was = ", ".join(f"{name} {theirs[name]}" for name in differing)
        asked = ", ".join(f"{name} {ours[name]}" for name in differing)
        raise TrainingError(
            f"{folder / STATE_FILE} is of a run with {was}, got {asked}; ask for the same, "
            "choose another work folder, or remove the file to train anew"
        )


def check_same_data(saved: SavedRun, data: str, folder: Path) -> None:
    """Check that a saved run, with whatever options, was trained on these data.

    Raises:
        TrainingError: If it was not.
    """
    check_same_run(saved, saved.options, data, folder)


def load_average_(network: nn.Module, folder: Path) -> int:
    """Copy the weight average of a run, finished or not, into a network; return its step.

    Parameters that do not require gradients are read as they were.

    Raises:
        TrainingError: If the state is damaged or of another network.
    """
    path = folder / STATE_FILE
    with _reading(path) as file, torch.no_grad():
        for name, parameter in network.named_parameters():
            kind = "average" if parameter.requires_grad else "network"
            parameter.copy_(_tensor(file, f"{kind}.{name}", parameter, path))
        network.eval()
        return int(file.metadata()["step"])


def _trained(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def _schedule(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))


class _Loss(nn.Module):
    """The loss of a network as a module: what data-parallel training runs once per step."""

    def __init__(self, network: nn.Module, loss: LossFunction) -> None:
        super().__init__()
        self.network = network
        self.loss = loss

    def forward(self, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(self.network, rng, noise)


class _Run:
    """A network in training, with everything that the next step depends on."""

    def __init__(
        self,
        network: nn.Module,
        loss: LossFunction,
        optimizers: Optimizers,
        options: TrainOptions,
        data: str,
        folder: Path,
        workers: Workers,
    ) -> None:
        self.network = network
        self.options = options
        self.data = data
        self.path = folder / STATE_FILE
        self.workers = workers
        self.loss = workers.wrap(_Loss(network, loss))
        self.optimizers = optimizers
        self.average = {name: value.detach().clone() for name, value in _trained(network).items()}
        self.step = 0
        self.saved_step = 0
        self.is_whole = True
        """False while parameters, moments and average are of different steps."""

    def advance_(self) -> float:
        """Do one step; return its loss, over the shares of all workers."""
        options, step = self.options, self.step
        seeds = self.workers.seeds(options.seed, step)
        rng = np.random.default_rng(seeds)
        noise = torch.Generator().manual_seed(
            int(np.random.SeedSequence(seeds).generate_state(1)[0])
        )
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16"):
            value = self.loss(rng, noise)
        mean = self.workers.mean(value.item())
        if not math.isfinite(mean):
            raise TrainingError(
                f"loss is {mean} at step {step + 1} of {self.path.parent.name}; train with another "
                "--seed in another --work"
            )
        self.network.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(_trained(self.network).values(), 1.0)
        self.is_whole = False
        self.optimizers.step(_schedule(step, options))
        decay = min(options.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, parameter in _trained(self.network).items():
                self.average[name].lerp_(parameter, 1 - decay)
        self.step = step + 1
        self.is_whole = True
        return mean

    def take_average_(self) -> None:
        """Replace the trained weights by their average."""
        with torch.no_grad():
            for name, parameter in _trained(self.network).items():
                parameter.copy_(self.average[name])
        self.network.eval()

    def save(self) -> None:
        """Write the state, whole or not at all; only the first worker does."""
        if not self.workers.is_first:
            return
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.network.named_parameters():
            tensors[f"network.{name}"] = parameter.detach()
        for name, value in self.average.items():
            tensors[f"average.{name}"] = value
        tensors.update(self.optimizers.state())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "step": str(self.step),
            "options": json.dumps(asdict(self.options)),
            "data": self.data,
            "digest": _digest(self.average) if self.step == self.options.steps else "",
        }
        with replacing(self.path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        self.saved_step = self.step
        logger.info("saved %s at step %d", self.path, self.step)

    def resume_(self) -> None:
        """Take over the state on disk, if there is one."""
        saved = read_saved_run(self.path.parent)
        if saved is None:
            return
        check_same_run(saved, self.options, self.data, self.path.parent)
        with _reading(self.path) as file, torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(_tensor(file, f"network.{name}", parameter, self.path))
            for name, parameter in _trained(self.network).items():
                self.average[name].copy_(_tensor(file, f"average.{name}", parameter, self.path))
            state = {
                key: _tensor(file, key, value, self.path)
                for key, value in self.optimizers.state().items()
            }
            self.optimizers.load_state(state, saved.step)
        self.step = self.saved_step = saved.step
        logger.info("continuing %s at step %d of %d", self.path, self.step, self.options.steps)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name, value in tensors.items():
        total.update(name.encode())
        total.update(value.contiguous().cpu().numpy().tobytes())
    return total.hexdigest()


def _reading(path: Path) -> safetensors.safe_open:
    if not path.exists():
        raise TrainingError(f"{path} does not exist; train that network first")
    try:
        return safetensors.safe_open(path, framework="pt")
    except (safetensors.SafetensorError, OSError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; remove it to train anew") from exc


def _tensor(file: safetensors.safe_open, name: str, like: Tensor, path: Path) -> Tensor:
    """Return a tensor of a state after checking that it belongs to this network."""
    try:
        tensor: Tensor = file.get_tensor(name)
    except safetensors.SafetensorError as exc:
        raise TrainingError(
            f"{path} lacks {name}, so it is of another network; choose another work folder, or "
            "remove the file to train anew"
        ) from exc
    if tensor.shape != like.shape:
        raise TrainingError(
            f"{path} holds {name} of shape {tuple(tensor.shape)}, this network has "
            f"{tuple(like.shape)}; choose another work folder, or remove the file to train anew"
        )
    return tensor
