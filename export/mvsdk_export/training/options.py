"""What a training run is told and what it tells: light data, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvsdk.errors import MvsdkError

Precision = Literal["float32", "bfloat16"]

MAX_SEED = 2**32 - 1


class TrainingError(MvsdkError):
    """Training cannot go on from the files that are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How long and how fast to train."""

    steps: int
    batch_size: int
    learning_rate: float
    matrix_rate: float | None = None
    """Learning rate of Muon, for the matrices of the denoiser; None trains them by AdamW too."""
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    """Decay of the weight average; the average warms up with the step number."""
    precision: Precision = "float32"
    """Of the products inside the network; weights, moments and the average are float32. bfloat16 is
    faster only where the CPU multiplies it (AMX): without, products were a hundred times slower."""
    seed: int = 0
    save_every_s: float = 120.0
    """Seconds between checkpoints; the only field that a continued run may change."""

    def __post_init__(self) -> None:
        """Check the ranges that cannot be seen from a loss curve."""
        if self.steps < 1 or self.batch_size < 1:
            raise TrainingError(
                f"cannot train {self.steps} steps of {self.batch_size} examples; "
                "allowed: at least 1 of each"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise TrainingError(f"seed is {self.seed}; allowed: 0 to {MAX_SEED}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStep:
    """Progress of a stage, handed to the caller after every step."""

    step: int
    """Steps done, those of earlier sessions included."""
    steps: int
    loss: float | None
    """Loss of this step's batch; None where nothing is trained."""
    elapsed_s: float
    """Since this session began."""
