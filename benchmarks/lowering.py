"""Measures the memory and time that lowering a large network takes, target by target.

    python -m benchmarks.lowering --write benchmarks/lowering.json
    python -m benchmarks.lowering --megabytes 64 coreml-fp16 xnnpack-fp32

Each lowering works in a process of its own. The network, linear layers or convolutions of random
weights, is built inside it, so what counts is everything above the imported libraries: the network
itself, what converters hold, and what is written. The bound of the project is three times the
network's float32 bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvsdk_export.jobs.worker import peak_bytes

MEGABYTES = 192
WIDTH = 1024
BOUND = 3.0
_PACKAGES = ("torch", "coremltools", "coreai-torch", "executorch", "torchao")


class _Linear(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


class _Convolutions(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        width = WIDTH // 2
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


def _build(kind: str, megabytes: int) -> tuple[nn.Module, dict[str, Tensor]]:
    bytes_per_layer = 4 * WIDTH * WIDTH if kind == "linear" else 9 * WIDTH * WIDTH
    layers = max(1, megabytes * 1_000_000 // bytes_per_layer)
    torch.manual_seed(0)
    if kind == "linear":
        return _Linear(layers).eval(), {"x": torch.zeros(1, 16, WIDTH)}
    return _Convolutions(layers).eval(), {"x": torch.zeros(1, WIDTH // 2, 8, 8)}


def _lower_coreml(network: nn.Module, inputs: Mapping[str, Tensor], folder: Path) -> None:
    from mvsdk_export.targets.coreml.convert import convert

    convert(network, inputs, ["y"], folder / "n.mlpackage", deployment_target="iOS18")


def _lower_coreai(precision: Any) -> Callable[[nn.Module, Mapping[str, Tensor], Path], None]:
    def lower(network: nn.Module, inputs: Mapping[str, Tensor], folder: Path) -> None:
        from mvsdk_export.targets.coreai.lowering import lower_coreai

        lower_coreai(network, inputs, ["y"], folder / "n.aimodel", precision=precision)

    return lower


def _lower_xnnpack(network: nn.Module, inputs: Mapping[str, Tensor], folder: Path) -> None:
    from mvsdk_export.targets.executorch.lowering import lower_xnnpack

    lower_xnnpack(network, inputs, folder / "n.pte")


def _lower_delegate(network: nn.Module, inputs: Mapping[str, Tensor], folder: Path) -> None:
    from mvsdk_export.targets.executorch.coreml import lower_coreml_delegate

    lower_coreml_delegate(network, inputs, folder / "n.pte", deployment_target="iOS18")


LOWERINGS: Mapping[str, Callable[[nn.Module, Mapping[str, Tensor], Path], None]] = {
    "coreml-fp16": _lower_coreml,
    "coreai-fp32": _lower_coreai("fp32"),
    "coreai-fp16": _lower_coreai("fp16"),
    "coreai-w8": _lower_coreai("w8"),
    "xnnpack-fp32": _lower_xnnpack,
    "executorch-coreml-fp16": _lower_delegate,
}


def _measure(name: str, kind: str, megabytes: int, pipe: Connection) -> None:
    """Lower once and send what it took; runs in a process of its own."""
    lower = LOWERINGS[name]
    warnings.simplefilter("ignore")  # of the converters, about each other
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        small, inputs = _build(kind, 0)
        lower(small, inputs, Path(folder))  # imports all that it needs
    base = peak_bytes()
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        network, inputs = _build(kind, megabytes)
        weights = sum(x.numel() * 4 for x in network.parameters())
        lower(network, inputs, Path(folder))
        seconds = time.perf_counter() - start
        written = sum(x.stat().st_size for x in Path(folder).rglob("*") if x.is_file())
    above = peak_bytes() - base
    pipe.send(
        {
            "lowering": name,
            "network": kind,
            "float32_bytes": weights,
            "peak_above_imports_bytes": above,
            "ratio": round(above / weights, 2),
            "written_bytes": written,
            "seconds": round(seconds, 1),
        }
    )


def measure(names: Sequence[str], megabytes: int) -> list[dict[str, Any]]:
    """Return one record for each lowering and kind of network."""
    context = multiprocessing.get_context("spawn")
    records: list[dict[str, Any]] = []
    for name in names:
        for kind in ("linear", "convolutions"):
            mine, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_measure, args=(name, kind, megabytes, theirs))
            child.start()
            theirs.close()
            try:
                records.append(mine.recv())
            except EOFError:
                records.append({"lowering": name, "network": kind, "failed": True})
            child.join()
            print(json.dumps(records[-1]), flush=True)
    return records


def main() -> int:
    """Measure and print; 1 if a lowering failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lowerings", nargs="*", metavar="LOWERING", help=", ".join(LOWERINGS))
    parser.add_argument("--megabytes", type=int, default=MEGABYTES, help="float32 weights")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the records")
    options = parser.parse_args()
    names = options.lowerings or list(LOWERINGS)
    if unknown := [name for name in names if name not in LOWERINGS]:
        parser.error(f"unknown lowering {unknown[0]!r}; known: {', '.join(LOWERINGS)}")
    records = measure(names, options.megabytes)
    if options.write is not None:
        made = {
            "command": " ".join(["python -m benchmarks.lowering", *sys.argv[1:]]),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "bound": BOUND,
            "records": records,
        }
        options.write.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return int(any("failed" in record for record in records))


if __name__ == "__main__":
    sys.exit(main())
