"""The runtime's Core ML backend with coremltools' own `MLModel`, and real packages.

Only the binding below it, which there is on a Mac alone, is ours: it takes and refuses what that
does, and has the checker evaluate the package.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("coremltools")

from core_ml import examples, run_package, write_stack

from mvsdk import BackendError, CoreML
from mvsdk.backends.coreml import TESTED_VERSION
from mvsdk.bundle import Bundle
from mvsdk.manifest import TensorSpec, Variant
from mvsdk_export.parity.verify import find_backends
from mvsdk_export.targets.coreml.checker import load_program
from mvsdk_export.targets.coreml.chunks import make_pipeline
from mvsdk_export.targets.coreml.functions import join_functions
from mvsdk_export.targets.coreml.tools import import_coremltools

pytestmark = [
    pytest.mark.torch,
    pytest.mark.apple,
    # coremltools leaves the folders of its models to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:coremltools"),
]


class _Binding:
    """Stands for `_MLModelProxy`, as coremltools 9.0 calls it."""

    newest = 9

    def __init__(
        self, path: str, units: str, function: str, hints: dict[str, str], asset: object
    ) -> None:
        self.made = (path, units, function, hints, asset)
        if Path(path).name.startswith("Broken"):
            raise RuntimeError('Error compiling model: "no such operator".')
        self._program = load_program(Path(path), function or None)

    @staticmethod
    def maximum_supported_specification_version() -> int:
        return _Binding.newest

    def get_compiled_model_path(self) -> str:
        return "model.mlmodelc"

    def predict(self, data: dict[str, NDArray[Any]], state: object) -> dict[str, NDArray[Any]]:
        assert state is None
        for value in data.values():
            if not value.flags.writeable or value.dtype not in (np.float32, np.float64, np.int32):
                raise RuntimeError("value type not convertible")
        taken = {item.name: data[item.name].astype(item.dtype) for item in self._program.inputs}
        made = self._program.run(taken)
        # The binding has no float16.
        return {
            name: x.astype(np.float32) if x.dtype == np.float16 else x for name, x in made.items()
        }


@pytest.fixture(autouse=True)
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this machine a Mac as far as the backend and coremltools' models ask."""
    import_coremltools()
    from coremltools.models import model

    monkeypatch.setattr(model, "_MLModelProxy", _Binding)
    monkeypatch.setattr(model, "_is_macos", lambda: True)
    monkeypatch.setattr(model, "_macos_version", lambda: (15, 5))
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.5", ("", "", ""), "arm64"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package: only read it."""
    path = tmp_path_factory.mktemp("coreml") / "Stack.mlpackage"
    write_stack(path)
    return path


class _Folder(Bundle):
    """Stands for a bundle that holds one package."""

    def __init__(self, path: Path) -> None:
        object.__setattr__(self, "_path", path)  # a bundle is frozen

    def model(self, variant: Variant) -> Path:
        return self._path


def _variant(**changes: Any) -> Variant:
    inputs = [TensorSpec(name=n, shape=tuple(x.shape), dtype="float16") for n, x in _FEEDS.items()]
    made = Variant(
        id="iphone-coreml-fp16",
        target="iphone",
        format="coreml",
        deployment_target="iOS18",
        precision="fp16",
        chip=None,
        model="components/unet/iphone-coreml-fp16/Stack.mlpackage",
        files=(),
        inputs=tuple(inputs),
        outputs=(replace(inputs[0], name="y"),),
        compute_unit="NPU",
        tools={"coremltools": TESTED_VERSION},
    )
    return replace(made, **changes)


_FEEDS = {
    name: np.random.default_rng(0).standard_normal(tuple(x.shape)).astype(np.float32)
    for name, x in examples().items()
}


def _load(path: Path, **changes: Any) -> Any:
    return CoreML().load(_Folder(path), _variant(**changes))


def _check(session: Any, path: Path, **options: Any) -> None:
    """Check that a session gives what its package does, on arrays that nobody may write to."""
    for value in _FEEDS.values():
        value.flags.writeable = False
    made = session.run(_FEEDS)["y"]
    assert made.dtype == np.float32
    assert np.array_equal(made, run_package(path, _FEEDS, **options)["y"].astype(np.float32))


def test_a_package_runs_as_coremltools_calls_it(stack: Path) -> None:
    _check(_load(stack), stack)


def test_a_pipeline_of_chunks_runs_as_the_whole(stack: Path, tmp_path: Path) -> None:
    path = tmp_path / "Chunks.mlpackage"
    assert make_pipeline(stack, path, chunk_bytes=90_000)
    _check(_load(path), path)


def test_one_of_several_functions_runs(stack: Path, tmp_path: Path) -> None:
    large = tmp_path / "Large.mlpackage"
    write_stack(large, size=16)
    path = tmp_path / "Sizes.mlpackage"
    join_functions({"small": stack, "large": large}, path)
    _check(_load(path), path, function="small")
    _check(_load(path, function="small"), path, function="small")
    with pytest.raises(BackendError, match="has no function 'none'"):
        _load(path, function="none")


def test_a_package_that_core_ml_refuses_is_told_with_its_reason(
    stack: Path, tmp_path: Path
) -> None:
    path = tmp_path / "Broken.mlpackage"
    shutil.copytree(stack, path)
    words = r'cannot load unet/iphone-coreml-fp16: .*; Error compiling model: "no such operator"'
    with pytest.raises(BackendError, match=words):
        _load(path)


def test_a_package_of_a_later_core_ml_is_refused(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Binding, "newest", 6)
    with pytest.raises(BackendError, match="not loaded or compiled with the Core ML Framework"):
        _load(stack)


def test_damage_is_an_error_of_the_backend(stack: Path, tmp_path: Path) -> None:
    path = tmp_path / "Damaged.mlpackage"
    shutil.copytree(stack, path)
    (model,) = path.rglob("model.mlmodel")
    model.write_bytes(b"\xff" * 100)
    with pytest.raises(BackendError, match="Core ML cannot load unet/iphone-coreml-fp16: "):
        _load(path)


@pytest.mark.parametrize("delegate", [None, "coreml"])
def test_a_mac_verifies_with_the_checker_as_other_systems_do(delegate: Any) -> None:
    """The record says that the checker ran, and bundles verified elsewhere are held to the same."""
    variant = _variant(target="executorch", format="executorch") if delegate else _variant()
    variant = replace(variant, delegate=delegate)
    backends = find_backends({"unet": variant})
    assert backends["unet"].name == "coreml-checker"
