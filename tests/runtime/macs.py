"""A Mac for tests: what it says of itself, and a coremltools whose models are Python functions."""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_bundles import SHAPES

NUMBERS = {"float16": 65552, "float32": 65568, "int32": 131104, "float64": 65600}
"""Types of arrays -> coremltools' numbers of them."""


class ComputeUnit(enum.Enum):
    """As in coremltools."""

    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


Function = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass
class Package:
    """What stands for a package: the description of a function, and what it computes."""

    inputs: list[Any]
    outputs: list[Any]
    run: Function
    states: list[Any] = field(default_factory=list)
    functions: dict[str, Package] = field(default_factory=dict)
    default: str = ""
    refusal: Exception | None = None
    """What Core ML says instead of loading it."""

    def describe(self, name: str = "") -> SimpleNamespace:
        functions = [package.describe(name) for name, package in self.functions.items()]
        return SimpleNamespace(
            name=name,
            input=self.inputs,
            output=self.outputs,
            state=self.states,
            functions=functions,
            defaultFunctionName=self.default,
        )


def tensor(name: str, shape: Sequence[int], dtype: str) -> SimpleNamespace:
    """Return a feature that is an array."""
    array = SimpleNamespace(shape=list(shape), dataType=NUMBERS[dtype])
    kind = SimpleNamespace(WhichOneof=lambda _: "multiArrayType", multiArrayType=array)
    return SimpleNamespace(name=name, type=kind)


def picture(name: str) -> SimpleNamespace:
    """Return a feature that is a picture."""
    return SimpleNamespace(name=name, type=SimpleNamespace(WhichOneof=lambda _: "imageType"))


def half(dtype: str) -> str:
    """Return the type of a tensor of a package."""
    return dtype if dtype == "int32" else "float16"


def package(component: str, run: Function, **changes: Any) -> Package:
    """Return a component of `tiny_bundles` as the toolchain writes it: float16 outside."""
    inputs, outputs = (
        [tensor(name, shape, half(dtype)) for name, (shape, dtype) in side.items()]
        for side in SHAPES[component]
    )
    return Package(**{"inputs": inputs, "outputs": outputs, "run": run, **changes})


class Mac:
    """A machine on which packages run that are named by their component.

    Attributes:
        loaded: (path, compute units, function) of every model, in order.
    """

    def __init__(self, packages: Mapping[str, Package]) -> None:
        self.packages = packages
        self.loaded: list[tuple[str, str, str | None]] = []

    @property
    def coremltools(self) -> SimpleNamespace:
        """What `import coremltools` gives."""

        def open_model(path: str, **options: Any) -> _MLModel:
            return _MLModel(self, path, **options)

        logging.getLogger("coremltools").warning("torch was not tested with coremltools")
        return SimpleNamespace(ComputeUnit=ComputeUnit, models=SimpleNamespace(MLModel=open_model))


class _MLModel:
    """Takes, gives and refuses what coremltools 9.0 and its binding do."""

    def __init__(
        self, mac: Mac, path: str, *, compute_units: ComputeUnit, function_name: str | None
    ) -> None:
        assert type(path) is str
        self._package = next(item for name, item in mac.packages.items() if f"/{name}/" in path)
        self._works = self._package.refusal is None
        if not self._works:
            text = f"You will not be able to run predict(). message was: {self._package.refusal}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        if function_name is not None and self._package.functions:
            self._package = self._package.functions[function_name]
        mac.loaded.append((path, compute_units.name, function_name))
        self._whole = next(item for name, item in mac.packages.items() if f"/{name}/" in path)

    def get_compiled_model_path(self) -> str:
        if not self._works:
            raise RuntimeError("This model was not loaded or compiled with the Core ML Framework.")
        return "model.mlmodelc"

    def get_spec(self) -> SimpleNamespace:
        return SimpleNamespace(description=self._whole.describe())

    def predict(self, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, value in data.items():
            if value.dtype == np.float16:
                data[name] = value.astype(np.float32)
        for value in data.values():
            if not value.flags.writeable or value.dtype not in (np.float32, np.float64, np.int32):
                raise RuntimeError("value type not convertible")
        made = self._package.run(data)
        return {
            name: np.asarray(x, np.int32 if x.dtype == np.int32 else np.float32)
            for name, x in made.items()
        }


def on_mac(monkeypatch: pytest.MonkeyPatch, mac: Mac | None, *, macos: str = "15.5") -> None:
    """Make this machine a Mac with Apple's chip; without `mac`, it lacks coremltools."""
    imported, version = importlib.import_module, importlib.metadata.version

    def import_module(name: str, package: str | None = None) -> Any:
        if name == "coremltools":
            if mac is None:
                raise ImportError("No module named 'coremltools'")
            return mac.coremltools
        return imported(name, package)

    def installed(name: str) -> str:
        if name == "coremltools":
            if mac is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return "9.0"
        return version(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(importlib.metadata, "version", installed)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("platform.mac_ver", lambda: (macos, ("", "", ""), "arm64"))
