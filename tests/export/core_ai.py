"""Core AI assets run by Apple's runtime on this CPU, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mvsdk.backends.native_output import captured_native_output

Arrays = Mapping[str, NDArray[Any]]

MARKS = [
    pytest.mark.torch,
    pytest.mark.coreai,
    # of PyTorch, inside what Apple's packages do with it
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
"""Of every module that tests Core AI."""


def run_network(network: nn.Module, values: Arrays) -> NDArray[Any]:
    with torch.inference_mode():
        return network(*(torch.from_numpy(x) for x in values.values())).numpy()


def run_asset(path: Path, values: Arrays, function: str = "main") -> dict[str, NDArray[Any]]:
    """Run an asset with Apple's runtime on this CPU; values get the types that it takes."""

    async def run() -> dict[str, NDArray[Any]]:
        from coreai.authoring import AIModelAsset
        from coreai.runtime import NDArray as Value

        async with AIModelAsset.load(path).executable() as model:
            call = model.load_function(function)
            types = {name: call.desc.input_descriptor(name).dtype for name in values}
            given = {name: Value(x.astype(types[name])) for name, x in values.items()}
            return {name: x.numpy().copy() for name, x in (await call(given)).items()}

    with captured_native_output():
        return asyncio.run(run())


def sqnr_db(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    noise = np.square(found.astype(np.float64) - wanted).sum()
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / max(noise, 1e-300)))
