"""The training loop: one step at a time, resumable to the same loss curve after any interruption.

Nothing random outlives a step: the generators of step `n` are made from `(seed, n)`, so a resumed
run draws what the uninterrupted one would have drawn. State is kept in safetensors, never pickles.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mvsdk._staging import replacing
from mvsdk_export.distill.options import TrainingError, TrainOptions, TrainStep

logger = logging.getLogger(__name__)

LossFunction = Callable[[nn.Module, np.random.Generator, torch.Generator], Tensor]
"""(network, generator for data, generator for noise) -> scalar loss of one batch."""

STATE_FILE = "state.safetensors"


def train(
    network: nn.Module, loss: LossFunction, options: TrainOptions, folder: Path
) -> Generator[TrainStep]:
    """Train a network in place; leave the averaged weights in it at the end.

    The state is saved from time to time, at the end, and when the run is interrupted: by closing
    the iterator or by KeyboardInterrupt. Close it (`contextlib.closing`) to be sure of that.

    Args:
        network: Network to train. Holds the weight average once the iterator is exhausted.
        loss: Computes the loss of one batch.
        options: Length, batch size and optimiser.
        folder: Where `state.safetensors` is kept; a run found there is continued.

    Yields:
        Progress after each step; the caller owns display and cancellation.

    Raises:
        TrainingError: If the state in `folder` is damaged or of a run with other options or another
            network, or if the loss is not finite.
    """
    run = _Run(network, options, folder)
    run.resume_()
    network.train()
    started = saved = time.monotonic()
    try:
        while run.step < options.steps:
            value = run.advance_(loss)
            now = time.monotonic()
            if now - saved > options.save_every_s or run.step == options.steps:
                run.save()
                saved = now
            yield TrainStep(step=run.step, steps=options.steps, loss=value, elapsed_s=now - started)
    except (KeyboardInterrupt, GeneratorExit):
        if run.is_whole and run.step > run.saved_step:
            run.save()
        raise
    run.take_average_()


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """How far the run of a folder has come."""

    step: int
    options: TrainOptions

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
        options = TrainOptions(**json.loads(metadata["options"]))
        return SavedRun(step=int(metadata["step"]), options=options)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; remove it to train anew") from exc


def check_same_options(saved: SavedRun, options: TrainOptions, folder: Path) -> None:
    """Check that a saved run can be continued with these options.

    Raises:
        TrainingError: If a field other than `save_every_s` differs.
    """
    theirs = asdict(saved.options)
    ours = asdict(replace(options, save_every_s=saved.options.save_every_s))
    differing = [name for name, value in ours.items() if theirs[name] != value]
    if differing:
        was = ", ".join(f"{name} {theirs[name]}" for name in differing)
        asked = ", ".join(f"{name} {ours[name]}" for name in differing)
        raise TrainingError(
            f"{folder / STATE_FILE} is of a run with {was}, asked is {asked}; ask for the same, "
            "choose another work folder, or remove the file to train anew"
        )


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


_MOMENTS: Mapping[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
}
"""What an optimiser keeps of a parameter."""


def _build_optimizers(network: nn.Module, options: TrainOptions) -> list[torch.optim.Optimizer]:
    """Return the optimisers; with Muon, matrices inside `layers` are its own.

    Reference:
        Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982
        (the scale at which both take the same learning rate).
    """
    trained = _trained(network)
    matrices = [
        name
        for name, value in trained.items()
        if options.optimizer == "muon" and value.dim() == 2 and "layers." in name
    ]
    rest = [value for name, value in trained.items() if name not in matrices]
    common = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, fused=True, **common)]
    if matrices:
        muon = torch.optim.Muon(
            [trained[name] for name in matrices], adjust_lr_fn="match_rms_adamw", **common
        )
        optimizers.append(muon)
    return optimizers


class _Run:
    """A network in training, with everything that the next step depends on."""

    def __init__(self, network: nn.Module, options: TrainOptions, folder: Path) -> None:
        self.network = network
        self.options = options
        self.path = folder / STATE_FILE
        self.optimizers = _build_optimizers(network, options)
        self.average = {name: value.detach().clone() for name, value in _trained(network).items()}
        self.step = 0
        self.saved_step = 0
        self.is_whole = True
        """False while parameters, moments and average are of different steps."""

    def advance_(self, loss: LossFunction) -> float:
        """Do one step; return its loss."""
        options, step = self.options, self.step
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * _schedule(step, options)
        rng = np.random.default_rng([options.seed, step])
        noise = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            value = loss(self.network, rng, noise)
        if not math.isfinite(value.item()):
            raise TrainingError(
                f"loss is {value.item()} at step {step + 1} of {self.path.parent.name}; train "
                "anew with another seed or a lower learning rate"
            )
        self.network.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(_trained(self.network).values(), 1.0)
        self.is_whole = False
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(options.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, parameter in _trained(self.network).items():
                self.average[name].lerp_(parameter, 1 - decay)
        self.step = step + 1
        self.is_whole = True
        return value.item()

    def _optimizer_of(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return next(
            optimizer
            for optimizer in self.optimizers
            if any(parameter is x for group in optimizer.param_groups for x in group["params"])
        )

    def take_average_(self) -> None:
        """Replace the trained weights by their average."""
        with torch.no_grad():
            for name, parameter in _trained(self.network).items():
                parameter.copy_(self.average[name])
        self.network.eval()

    def save(self) -> None:
        """Write the state, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.network.named_parameters():
            tensors[f"network.{name}"] = parameter.detach()
        for name, parameter in _trained(self.network).items():
            tensors[f"average.{name}"] = self.average[name]
            optimizer = self._optimizer_of(parameter)
            moments = optimizer.state[parameter]  # none where no gradient has come yet
            for key in _MOMENTS[type(optimizer)]:
                tensors[f"{key}.{name}"] = moments.get(key, torch.zeros_like(parameter))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"step": str(self.step), "options": json.dumps(asdict(self.options))}
        with replacing(self.path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        self.saved_step = self.step
        logger.info("saved %s at step %d", self.path, self.step)

    def resume_(self) -> None:
        """Take over the state on disk, if there is one."""
        saved = read_saved_run(self.path.parent)
        if saved is None:
            return
        check_same_options(saved, self.options, self.path.parent)
        with _reading(self.path) as file, torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(_tensor(file, f"network.{name}", parameter, self.path))
            for name, parameter in _trained(self.network).items():
                self.average[name].copy_(_tensor(file, f"average.{name}", parameter, self.path))
                optimizer = self._optimizer_of(parameter)
                optimizer.state[parameter] = {
                    key: _tensor(file, f"{key}.{name}", parameter, self.path).clone()
                    for key in _MOMENTS[type(optimizer)]
                }
                if isinstance(optimizer, torch.optim.AdamW):
                    optimizer.state[parameter]["step"] = torch.tensor(float(saved.step))
        self.step = self.saved_step = saved.step
        logger.info("continuing %s at step %d of %d", self.path, self.step, self.options.steps)


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
