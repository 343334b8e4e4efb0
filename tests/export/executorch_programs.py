"""ExecuTorch programs run by its own runtime on this CPU, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from core_ml import Stack
from numpy.typing import NDArray
from torch import nn

MARKS = [
    pytest.mark.torch,
    pytest.mark.executorch,
    # of PyTorch, inside what ExecuTorch does with it
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
"""Of every module that tests ExecuTorch."""


def uneven_stack() -> nn.Module:
    """Return a network whose weights differ more than those of training do at first."""
    network = Stack().eval()
    with torch.no_grad():
        network.first.weight.mul_(2.0)
    return network


def run_program(path: Path, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return what a program of one output makes; its weights may lie beside it."""
    from executorch.runtime import Runtime

    weights = path.with_suffix(".ptd")
    beside = weights if weights.exists() else None
    program = Runtime.get().load_program(path, data_path=beside)
    (made,) = program.load_method("forward").execute([torch.from_numpy(x) for x in feed.values()])
    return made.numpy()
