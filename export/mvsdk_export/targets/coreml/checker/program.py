"""Programs that run: one function of a package, from arrays to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvsdk._text import quoted
from mvsdk.errors import InputError
from mvsdk_export.targets.coreml.checker.binding import HELD, ROUNDED
from mvsdk_export.targets.coreml.checker.checks import check_operations
from mvsdk_export.targets.coreml.checker.evaluator import Evaluator
from mvsdk_export.targets.coreml.checker.package import Package, Tensor, open_package
from mvsdk_export.targets.coreml.checker.values import TensorType


class Program:
    """A function of a package, its constants decoded once: it can run many times."""

    def __init__(self, package: Package, function: str | None = None) -> None:
        """Use `load_program`."""
        sources = package.sources(function)
        check_operations([source.block for source in sources])
        described = package.functions[function or package.default_function]
        self.inputs: tuple[Tensor, ...] = described.inputs
        """What it takes, in the package's order."""
        self.outputs: tuple[Tensor, ...] = described.outputs
        """What it gives."""
        self._parts = [Evaluator(package.folder, source) for source in sources]
        self._check_parts(package)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Evaluate once.

        Args:
            inputs: One array for each of `inputs`, of its shape. Numbers of another width are
                converted, as Core ML does it; fractions are not given for whole numbers.

        Returns:
            One array for each of `outputs`.

        Raises:
            InputError: If an input is missing, unknown, or of another shape or kind.
            BundleError: If an operation cannot be evaluated, or makes something else than its type
                says.
        """
        known = {item.name: item for item in self.inputs}
        if unknown := sorted(inputs.keys() - known.keys()):
            raise InputError(
                f"the package takes no input {quoted(unknown[0])}; it takes {', '.join(known)}"
            )
        values = {name: _take(item, inputs) for name, item in known.items()}
        with torch.inference_mode():
            for part in self._parts:
                values |= part.run(values)
        return {item.name: values[item.name].numpy().astype(item.dtype) for item in self.outputs}

    def _check_parts(self, package: Package) -> None:
        """Check that every part is given what it takes, by the parts before it or from outside."""
        known = {item.name: TensorType(dtype=item.dtype, shape=item.shape) for item in self.inputs}
        for part in self._parts:
            for name, kind in part.inputs.items():
                given = known.get(name)
                if given is None or given.dtype != kind.dtype or not kind.fits(given.shape):
                    said = "nothing" if given is None else f"{given.dtype} {given.shape[:8]}"
                    raise package.folder.damaged(
                        f"has a program that takes {quoted(name)} as {kind.dtype} "
                        f"{kind.shape[:8]} and is given {said}"
                    )
            known |= part.outputs


def load_program(path: Path, function: str | None = None) -> Program:
    """Open a package and decode a function of it.

    Args:
        path: The .mlpackage folder.
        function: Of a package that has several; None for the default.

    Raises:
        TargetUnavailableError: If coremltools is missing, which has the format's messages.
        BundleError: If the package is damaged or unsafe, or has no such function.
        UnsupportedOpError: If it has operations, or modes of them, that are not known here, whose
            kinds are named.
    """
    return Program(open_package(path), function)


def _take(item: Tensor, inputs: Mapping[str, NDArray[Any]]) -> torch.Tensor:
    """Return an input as operations take it."""
    if item.name not in inputs:
        given = ", ".join(sorted(inputs))[:200] or "nothing"
        raise InputError(f"the package wants the input {quoted(item.name)}; given: {given}")
    value = np.asarray(inputs[item.name])
    kind = TensorType(dtype=item.dtype, shape=item.shape)
    whole = "float" not in item.dtype
    if not kind.fits(value.shape) or value.dtype.kind not in ("iub" if whole else "iubf"):
        raise InputError(
            f"the input {quoted(item.name)} is {value.dtype} {value.shape}, the package wants "
            f"{item.dtype} {item.shape}"
        )
    tensor = torch.from_numpy(np.array(value)).to(HELD[item.dtype])
    rounded = ROUNDED.get(item.dtype)
    return tensor if rounded is None else tensor.to(rounded).to(HELD[item.dtype])
