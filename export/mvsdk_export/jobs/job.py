"""Jobs: pieces of an export that run once, each in a process of its own, and are found by content.

A job is a frozen dataclass: what decides its result are its fields, other jobs among them, and the
code that it runs. `run` is called in the job's process, with what those other jobs made:

    @dataclass(frozen=True, kw_only=True, eq=False)
    class Finish(Job[GraphResult]):
        traced: Job[GraphResult]
        precision: Precision

        def run(self, inputs: Inputs, output: Path) -> GraphResult:
            model = onnx.load(inputs[self.traced].folder / MODEL)
            ...

`run` writes files into `output`, and returns JSON values. It prints nothing, and reads nothing but
its fields, what it needs, and `Files`. Modules of jobs are light to import: what is heavy is
imported by `run`.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from mvsdk_export.jobs.source import source_hash

R = TypeVar("R", bound=Mapping[str, object])
"""What a job returns: a `TypedDict` of JSON values."""

USUAL_BYTES = 1 << 30
"""Memory of a job that nobody estimates."""
TOOLS = (
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-qnn",
    "numpy",
    "ml_dtypes",
    "pillow",
    "coremltools",
    "coreai-core",
    "coreai-torch",
    "coreai-opt",
    "executorch",
    "torchao",
)
"""Packages whose versions decide what a job makes."""


_WITHOUT_EFFECT = ("name", "memory_bytes")
"""Fields of every job that decide nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Files outside of the cache that a job reads; where they lie decides nothing."""

    places: Mapping[str, Path]
    """Word -> file or folder."""
    fingerprint: str
    """Hash of what lies there."""
    modules: tuple[str, ...] = ()
    """Modules that what lies there names, and that a job imports by these names."""
    settings: Mapping[str, str | float] = field(default_factory=dict[str, "str | float"])
    """Word -> what else is said of what lies there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(ABC, Generic[R]):
    """What runs once; see the module. Two objects of equal content are made once."""

    name: str
    """What people call it, such as "compile unet for sm8650"; decides nothing."""
    memory_bytes: int = USUAL_BYTES
    """About the most that it holds at once: jobs run side by side as far as memory goes. Decides
    nothing either."""

    PRELOAD: ClassVar[tuple[str, ...]] = ()
    """Modules that its process shall find imported, where processes are forked."""

    @abstractmethod
    def run(self, inputs: Inputs, output: Path) -> R:
        """Make it.

        Args:
            inputs: What the jobs among its fields made.
            output: Folder for its files; empty but for the engine's own.
        """

    def modules(self) -> tuple[str, ...]:
        """Return modules that `run` imports by names that are not in the source."""
        found = [type(self).__module__]
        for value in _values(self):
            if isinstance(value, Files):
                found += value.modules
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made(Generic[R]):
    """A finished job."""

    job: Job[R]
    key: str
    """Hash of everything that the result depends on."""
    folder: Path
    """Where its files are."""
    result: R
    seconds: float
    peak_bytes: int
    """Largest resident memory of its process, bytes; 0 where the system does not tell."""
    base_bytes: int = 0
    """What the process had taken before the job began: libraries."""
    reused: bool
    """Whether an earlier run had finished it."""

    @property
    def name(self) -> str:
        """What people call the job."""
        return self.job.name


@dataclass(frozen=True, slots=True)
class Input(Generic[R]):
    """What a job finds of another."""

    folder: Path
    result: R


class Inputs:
    """What the jobs that a job needs have made."""

    def __init__(self, made: Sequence[tuple[Job[Any], Path, Mapping[str, Any]]]) -> None:
        """Keep them by job; the objects themselves are the names."""
        self._made = {id(job): (job, Input(folder, result)) for job, folder, result in made}

    def __getitem__(self, job: Job[R]) -> Input[R]:
        """Return what one made.

        Raises:
            KeyError: If it is not among the fields of the job that runs.
        """
        if id(job) not in self._made:
            raise KeyError(job.name)
        return cast("Input[R]", self._made[id(job)][1])


def needs(job: Job[Any]) -> tuple[Job[Any], ...]:
    """Return the jobs among the fields of one, each once, in order."""
    found = {id(value): value for value in _values(job) if isinstance(value, Job)}
    return tuple(found.values())


def in_order(jobs: Sequence[Job[Any]]) -> list[Job[Any]]:
    """Return jobs and all that they need, each once and behind what it needs."""
    ordered: dict[int, Job[Any]] = {}

    def add(job: Job[Any]) -> None:
        if id(job) not in ordered:
            for other in needs(job):
                add(other)
            ordered[id(job)] = job

    for job in jobs:
        add(job)
    return list(ordered.values())


class Keys:
    """Keys of jobs: hashes of all that decides their results."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: dict[int, tuple[Job[Any], str]] = {}

    def __getitem__(self, job: Job[Any]) -> str:
        """Return the key of a job."""
        if id(job) not in self._known:
            self._known[id(job)] = (job, self._make(job))  # the job: its id is in use as long
        return self._known[id(job)][1]

    def _make(self, job: Job[Any]) -> str:
        content = {
            "job": f"{type(job).__module__}:{type(job).__qualname__}",
            "fields": self._encode_fields(job),
            "tools": tool_versions(),
            "host": [*sys.version_info[:2], sys.platform, platform.machine()],
            "source": source_hash(job.modules()),
        }
        return sha256(dumps(content, sort_keys=True).encode()).hexdigest()

    def _encode_fields(self, value: Any) -> dict[str, Any]:
        return {
            item.name: self._encode(getattr(value, item.name))
            for item in fields(value)
            if not (isinstance(value, Job) and item.name in _WITHOUT_EFFECT)
        }

    def _encode(self, value: Any) -> Any:
        if isinstance(value, Job):
            return {"job": self[value]}
        if isinstance(value, Files):
            return {
                "files": value.fingerprint,
                "words": sorted(value.places),
                "settings": dict(value.settings),
            }
        if is_dataclass(value):
            return {"type": type(value).__qualname__, **self._encode_fields(value)}
        if isinstance(value, Mapping):
            return {str(key): self._encode(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._encode(item) for item in value]
        if value is None or isinstance(value, str | int | float):
            return value
        raise TypeError(f"{value!r} cannot be part of a job; use numbers, text, or Files")


def _values(value: Any) -> Iterator[Any]:
    """Yield the fields of a job, and what sequences and mappings among them hold."""
    todo = [getattr(value, item.name) for item in reversed(fields(value))]
    while todo:
        item = todo.pop()
        yield item
        if isinstance(item, Mapping):
            todo += reversed(list(item.values()))
        elif isinstance(item, list | tuple):
            todo += reversed(item)


@cache
def tool_versions() -> dict[str, str]:
    """Return the version of every installed tool that takes part in an export."""
    found: dict[str, str] = {}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
