"""Small networks as Core ML packages, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk_export.targets.coreml.checker import load_program
from mvsdk_export.targets.coreml.convert import convert

WIDTH = 48

Arrays = dict[str, NDArray[Any]]


class Stack(nn.Module):
    """Convolutions, a product over tokens and a skip connection, of random weights."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(layers))
        self.tokens = nn.Linear(WIDTH, 2 * WIDTH)
        self.last = nn.Conv2d(WIDTH, 3, 1)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """Map `(N, 3, H, W)` and one number to `(N, 3, H, W)`."""
        h = self.first(x)
        for layer in self.layers:
            h = h + 0.3 * torch.tanh(layer(h))
        a, b = self.tokens(h.permute(0, 2, 3, 1)).chunk(2, dim=3)
        return self.last((a * torch.sigmoid(b)).permute(0, 3, 1, 2)) * scale + x


def examples(size: int = 8) -> dict[str, Tensor]:
    """Return inputs of a `Stack`."""
    return {"x": torch.zeros(2, 3, size, size), "scale": torch.zeros(1)}


def feeds(count: int = 3, size: int = 8) -> list[Arrays]:
    """Return recorded calls of a `Stack`, as it were."""
    random = np.random.default_rng(0)
    return [
        {
            "x": random.standard_normal((2, 3, size, size)).astype(np.float32),
            "scale": random.random(1).astype(np.float32),
        }
        for _ in range(count)
    ]


def write_stack(path: Path, *, deployment_target: str = "iOS18", size: int = 8) -> nn.Module:
    """Convert a `Stack`; return it."""
    network = Stack().eval()
    convert(network, examples(size), ["y"], path, deployment_target=deployment_target)
    return network


def run_package(path: Path, feed: Mapping[str, NDArray[Any]], **options: Any) -> Arrays:
    """Evaluate a saved package."""
    program = load_program(path, **options)
    taken = {item.name: feed[item.name].astype(item.dtype) for item in program.inputs}
    return program.run(taken)


def run_network(network: nn.Module, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Run the network that a package was made of."""
    with torch.no_grad():
        return network(*(torch.from_numpy(value) for value in feed.values())).numpy()


def worst_db(path: Path, network: nn.Module, calls: Sequence[Mapping[str, NDArray[Any]]]) -> float:
    """Return the worst SQNR of a package over calls."""
    found: list[float] = []
    for feed in calls:
        wanted = run_network(network, feed).astype(np.float64)
        (given,) = run_package(path, feed).values()
        noise = np.square(given.astype(np.float64) - wanted).sum()
        found.append(10 * np.log10(np.square(wanted).sum() / noise))
    return min(found)
