"""Calibration inputs of the parts of a cut model: earlier parts make them, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mvsdk_export.graphs.split import Part
from mvsdk_export.jobs.progress import counting
from mvsdk_export.quantize.activations import Feed


def evaluate_parts(parts: Sequence[Part], calls: Sequence[Feed], folder: Path) -> None:
    """Run all parts but the last and keep what they give, in files.

    One part is in memory at a time.

    Args:
        parts: Float32 models, in the order in which they run.
        calls: Inputs of the whole.
        folder: Existing folder for a file per part and call.
    """
    count = counting(len(parts[:-1]) * len(calls), "calls")
    for index, part in enumerate(parts[:-1]):
        session = _open_session(part.path)
        for number, feed in enumerate(PartFeeds(parts, index, calls, folder)):
            found = session.run(list(part.outputs), dict(feed))
            np.savez(_values_file(folder, index, number), *map(np.asarray, found))
            count()
        del session  # before the next one is there


class PartFeeds(Sequence[Feed]):
    """Inputs of one part, call by call, read when they are asked for.

    All of them together need not fit into memory.
    """

    def __init__(
        self, parts: Sequence[Part], index: int, calls: Sequence[Feed], folder: Path
    ) -> None:
        """Find out what comes from where.

        Args:
            parts: All parts, in the order in which they run.
            index: Which of them the inputs are for.
            calls: Inputs of the whole.
            folder: What `evaluate_parts` wrote.
        """
        self._calls = calls
        self._folder = folder
        self._names = parts[index].inputs
        self._makers: Mapping[str, tuple[int, int]] = {
            name: (maker, position)
            for maker, part in enumerate(parts[:index])
            for position, name in enumerate(part.outputs)
        }
        """Name -> number of the part that makes it, and place among its outputs."""

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self._calls)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | list[Feed]:
        """Return the inputs in one call."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        return {name: self._read(name, number) for name in self._names}

    def _read(self, name: str, number: int) -> NDArray[Any]:
        if name not in self._makers:
            return self._calls[number][name]
        maker, position = self._makers[name]
        with np.load(_values_file(self._folder, maker, number), allow_pickle=False) as file:
            return file[f"arr_{position}"]


def _open_session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = False  # it would take twice the weights, by growing in powers
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _values_file(folder: Path, part: int, call: int) -> Path:
    return folder / f"part_{part}_call_{call}.npz"
