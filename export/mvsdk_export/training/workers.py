"""The processes that train together: one, or as many as `torchrun` has started."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mvsdk_export.training.options import TrainingError

PATIENCE = timedelta(days=7)
"""How long processes wait for the one that does alone what trains nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Which of the processes this is, and how many there are."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Return how many examples of a batch are this process's.

        Raises:
            TrainingError: If they cannot be shared evenly.
        """
        if batch_size % self.count:
            raise TrainingError(
                f"cannot share a batch of {batch_size} among {self.count} processes; start a "
                "number of processes that divides it: torchrun --nproc-per-node N"
            )
        return batch_size // self.count

    def seeds(self, seed: int, step: int) -> list[int]:
        """Return what the generators of a step are made from."""
        return [seed, step] if self.count == 1 else [seed, step, self.rank]

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module such that a backward pass averages gradients over all processes."""
        if self.count == 1:
            return module
        # Some stages leave parts of a network for a later one to train.
        return DistributedDataParallel(module, find_unused_parameters=True)

    def mean(self, value: float) -> float:
        """Return the mean of a number over all processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        with _together():
            dist.all_reduce(total)
        return total.item() / self.count

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            with _together():
                dist.barrier()


@contextmanager
def _together() -> Generator[None]:
    """Say plainly that another process is gone."""
    try:
        yield
    except RuntimeError as exc:
        raise TrainingError(
            "another process of torchrun has stopped; see its message, then run the same command "
            "again to go on"
        ) from exc


@contextmanager
def joined() -> Generator[Workers]:
    """Join the processes that `torchrun` has started; without it, work alone.

    Yields:
        This process among them.

    Raises:
        TrainingError: If its environment is incomplete.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1":
        yield Workers()
        return
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, RuntimeError) as exc:
        raise TrainingError(
            f"cannot join the processes of torchrun: {exc}; start them with "
            "torchrun --nproc-per-node N -m mvsdk train"
        ) from exc
    try:
        yield Workers(rank=dist.get_rank(), count=dist.get_world_size())
    finally:
        dist.destroy_process_group()
