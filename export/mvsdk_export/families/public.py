"""What a recipe says of the public folders of its models, as diffusers and transformers write them.

A key of a public config.json either is a field of ours, or has the one value that our networks
implement, or changes nothing when clips are made. Every other key is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

VARIANTS = ("fp16", "bf16")
"""Variants of weights that are read where the plain ones are missing."""

DIFFUSERS_UNUSED = (
    "_diffusers_version",
    "_name_or_path",
    # What training with a moving average of the weights notes beside them.
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
)
"""Keys of any network of diffusers that change nothing."""

CLIP_UNUSED = (
    "_attn_implementation_autoset",
    "_name_or_path",
    "attention_dropout",
    "dropout",
    "dtype",
    "initializer_factor",
    "initializer_range",
    "torch_dtype",
    "transformers_version",
)
"""Keys of CLIP's networks that change nothing."""


class Values(Protocol):
    """A JSON file, as far as what reads it for a recipe depends on it."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def values(self) -> Mapping[str, object]:
        """Of the object at its root."""
        ...

    def fail(self, key: str, want: str) -> NoReturn:
        """Raise the one-line error of a value."""
        ...

    def check_fixed(self, values: Mapping[str, object]) -> None:
        """Check keys that may hold one value only; a key that is not there is not checked."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicConfig:
    """What the keys of a public config.json mean.

    A key that is left out has the value that the class has by default in its own library, which
    leaves out some when it writes, and had not all of them in its older versions.
    """

    classes: Mapping[str, object]
    """Key -> what it says of the class that the file is of."""
    fields: Mapping[str, object]
    """Field of our configuration -> its default in the library."""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field of ours -> key, where that is another."""
    per_level: tuple[str, ...] = ()
    """Fields that are one number or one for each of the levels, whichever ours is."""
    further: tuple[str, ...] = ()
    """Keys that `read` knows."""
    read: Callable[[Values], Mapping[str, object]] | None = None
    """What other fields are, which no single key says."""
    fixed: Mapping[str, object]
    """Key -> the one value that our network implements, also its default unless required."""
    required: tuple[str, ...]
    """Keys that may not be left out: without them it would be another network."""
    unused: tuple[str, ...]
    """Keys that change nothing: sizes of training pictures, dropout, who wrote the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicModel:
    """The public folders of a recipe's models."""

    pipelines: tuple[str, ...]
    """Values of `_class_name` in model_index.json; messages name the first."""
    parts: Mapping[str, tuple[tuple[str, str], ...]]
    """Part -> the library and class that it may be of, the usual one first."""
    ignored: tuple[str, ...] = ()
    """Parts that clips are made without."""
    configs: Mapping[str, PublicConfig]
    """Subfolder, as recipes call it -> meaning of its config.json."""
    documents: Mapping[str, Mapping[str, object]] = field(
        default_factory=dict[str, Mapping[str, object]]
    )
    """Further JSON file of every such folder -> keys that it must have, and their values."""
    scheduler: str
    """Which reader in checkpoints/scheduler.py takes scheduler_config.json."""
