"""Banks of latents: clips that are drawn and encoded once, and seen over and over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from mvsdk._staging import replacing
from mvsdk_export.training.options import TrainingError

BANK_BATCH = 64
"""Clips that are drawn together when a bank is made; it decides which ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """Encoded clips. The bank of a model adds arrays that say what they show, a row per clip."""

    latents: NDArray[np.float16]
    """(N, F, C, h, w)."""

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.latents)


BankT = TypeVar("BankT", bound=Bank)


def save_bank(parts: Sequence[Bank], path: Path) -> None:
    """Write a bank, whole or not at all."""
    arrays = {
        # Encoded latents lie in memory as the convolution left them, and safetensors writes memory
        # as it lies.
        name: np.ascontiguousarray(np.concatenate([getattr(part, name) for part in parts]))
        for name in _arrays(type(parts[0]))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        safetensors.numpy.save_file(arrays, temporary)


def read_bank(kind: type[BankT], path: Path) -> BankT:
    """Read a bank that `save_bank` wrote.

    Raises:
        TrainingError: If the file is damaged.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
        return kind(**{name: arrays[name] for name in _arrays(kind)})
    except (safetensors.SafetensorError, OSError, KeyError) as exc:
        raise TrainingError(f"cannot read {path}: {exc}; remove it and run again") from exc


def check_bank(bank: BankT, count: int, first: BankT) -> None:
    """Check by its length and its first clips that a bank is the one that would be drawn now.

    Args:
        bank: What was read.
        count: Clips that it is to have.
        first: The first of these, drawn now.

    Raises:
        TrainingError: If it is of other clips or of another autoencoder.
    """
    if len(bank) != count or not all(
        _is_same(getattr(bank, name)[: len(first)], getattr(first, name))
        for name in _arrays(type(first))
    ):
        raise TrainingError(
            f"the latent bank of {len(bank)} clips is of other clips, subjects or another "
            f"autoencoder than the {count} clips asked for; choose another work folder, or remove "
            "the bank and what was trained on it"
        )


def _arrays(kind: type[Bank]) -> list[str]:
    return [field.name for field in fields(kind)]


def _is_same(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> bool:
    """Compare arrays; latents come out of products that another machine rounds otherwise."""
    if ours.shape != theirs.shape or theirs.dtype != np.float16:
        return np.array_equal(ours, theirs)
    return np.allclose(ours, theirs, rtol=4e-3, atol=2e-2)
