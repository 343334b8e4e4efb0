"""ExecuTorch and Core AI without their packages: what runs where, and what is said if it fails."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_bundles import LENGTH, WIDTH, VariantFiles, build_bundle

from mvsdk import BackendError, BundleError, CoreAI, ExecuTorch
from mvsdk.backends.coreai import _Loop
from mvsdk.bundle import Bundle
from mvsdk.manifest import Variant

PROGRAM = VariantFiles(target="executorch", delegate="xnnpack")
ASSET = VariantFiles(target="iphone", package="coreai")


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what is installed, as far as anybody asks."""
    found = {"executorch": "1.5.1", "coreai-core": "1.0.0b3"}

    def version(name: str) -> str:
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


def _system(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("platform.system", lambda: name)


def _variant(tmp_path: Path, kind: VariantFiles, component: str = "unet") -> tuple[Bundle, Variant]:
    bundle = build_bundle(tmp_path / f"{kind.id}.mvbundle", [kind])
    return bundle, bundle.manifest.components[component].variants[0]


# --- what runs where -----------------------------------------------------------------------------


def test_delegates_run_where_their_hardware_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    refusals: dict[tuple[str, str], str | None] = {}
    for delegate in ("xnnpack", "coreml", "qnn"):
        chip = "sm8650" if delegate == "qnn" else None
        kind = VariantFiles(target="executorch", delegate=delegate, chip=chip)
        _, variant = _variant(tmp_path, kind)
        for system in ("Linux", "Darwin", "Windows"):
            _system(monkeypatch, system)
            refusals[delegate, system] = ExecuTorch().unsupported_reason(variant)
    apple = "the delegate coreml runs on Apple's systems; use xnnpack here"
    phone = "the delegate qnn runs on a phone with a Snapdragon chip; use xnnpack here"
    assert refusals == {
        **dict.fromkeys(
            [("xnnpack", system) for system in ("Linux", "Darwin", "Windows")]
            + [("coreml", "Darwin")]
        ),
        **dict.fromkeys([("coreml", "Linux"), ("coreml", "Windows")], apple),
        **dict.fromkeys([("qnn", system) for system in ("Linux", "Darwin", "Windows")], phone),
    }


def test_what_is_not_theirs_is_refused(tmp_path: Path, versions: dict[str, str]) -> None:
    bundle, onnx = _variant(tmp_path, VariantFiles())
    with pytest.raises(BackendError, match="ExecuTorch runs the format executorch, not onnx"):
        ExecuTorch().load(bundle, onnx)
    with pytest.raises(BackendError, match="Core AI runs the format coreai, not onnx"):
        CoreAI().load(bundle, onnx)
    _, package = _variant(tmp_path, VariantFiles(target="iphone", package="coreml"))
    assert CoreAI().unsupported_reason(package) == "Core AI runs the format coreai, not coreml"


def test_missing_packages_are_named(tmp_path: Path, versions: dict[str, str]) -> None:
    versions.clear()
    bundle, program = _variant(tmp_path, PROGRAM)
    with pytest.raises(BackendError, match=r"unet/executorch-.* run: .*pip install exec"):
        ExecuTorch().load(bundle, program)
    bundle, asset = _variant(tmp_path, ASSET)
    with pytest.raises(BackendError, match=r"unet/iphone-coreai-.* pip install coreai-core=="):
        CoreAI().load(bundle, asset)


def test_backends_say_whose_times_theirs_are(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    _system(monkeypatch, "Linux")
    assert ExecuTorch().describe() == "ExecuTorch 1.5.1 on this machine's CPU, XNNPACK"
    assert CoreAI().describe() == "Core AI runtime 1.0.0b3 on this CPU: not a phone's times"
    _system(monkeypatch, "Darwin")
    assert ExecuTorch().describe() == "ExecuTorch 1.5.1 on this Mac"
    assert CoreAI().describe() == "Core AI runtime 1.0.0b3 on this Mac"


# --- modules that stand for theirs ---------------------------------------------------------------


def _install(monkeypatch: pytest.MonkeyPatch, modules: dict[str, Any]) -> None:
    """Have the backends import these, whatever is installed."""

    def imported(name: str) -> Any:
        if isinstance(found := modules[name], Exception):
            raise found
        return found

    monkeypatch.setattr(importlib, "import_module", imported)


class _Torch:
    """Stands for PyTorch: a tensor is an array that knows how to be one."""

    @staticmethod
    def from_numpy(array: Any) -> Any:
        assert array.flags.writeable
        return SimpleNamespace(numpy=lambda: array)


def _program(
    inputs: list[tuple[tuple[int, ...], int]],
    outputs: list[tuple[tuple[int, ...], int]],
    run: Callable[[list[Any]], list[Any]] = lambda given: given,
    methods: tuple[str, ...] = ("forward",),
) -> Any:
    """Return a program that has these shapes and types."""

    def meta(side: list[tuple[tuple[int, ...], int]]) -> Callable[[int], Any]:
        return lambda place: SimpleNamespace(
            sizes=lambda: side[place][0], dtype=lambda: side[place][1]
        )

    metadata = SimpleNamespace(
        num_inputs=lambda: len(inputs),
        num_outputs=lambda: len(outputs),
        input_tensor_meta=meta(inputs),
        output_tensor_meta=meta(outputs),
    )
    method = SimpleNamespace(metadata=metadata, execute=run)
    return SimpleNamespace(method_names=set(methods), load_method=lambda name: method)


def _executorch(program: Any, registered: tuple[str, ...] = ("XnnpackBackend",)) -> dict[str, Any]:
    runtime = SimpleNamespace(load_program=lambda path, data_path: program)
    runtime.backend_registry = SimpleNamespace(registered_backend_names=list(registered))
    package = SimpleNamespace(Runtime=SimpleNamespace(get=lambda: runtime))
    return {"torch": _Torch, "executorch.runtime": package}


INT32, FLOAT32 = 3, 6


def test_a_program_is_fed_by_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    def run(given: list[Any]) -> list[Any]:
        (ids,) = (tensor.numpy() for tensor in given)
        hidden = np.broadcast_to(ids[..., None], (1, LENGTH, WIDTH)).astype(np.float32)
        return [SimpleNamespace(numpy=lambda: hidden)]

    program = _program([((1, LENGTH), INT32)], [((1, LENGTH, WIDTH), FLOAT32)], run)
    _install(monkeypatch, _executorch(program))
    bundle, variant = _variant(tmp_path, PROGRAM, "text_encoder")
    session = ExecuTorch().load(bundle, variant)
    made = session.run({"input_ids": np.full((1, LENGTH), 3, np.int32)})
    assert made["encoder_hidden_states"].shape == (1, LENGTH, WIDTH)
    assert np.all(made["encoder_hidden_states"] == 3)


@pytest.mark.parametrize(
    ("program", "error", "words"),
    [
        (
            _program([((1, LENGTH), INT32)], [((1, LENGTH, WIDTH), 15)]),
            BundleError,
            r"outputs are \{'encoder_hidden_states': \(\[1, 6, 8\], 'type 15'\)\}, the manifest",
        ),
        (
            _program([((1, LENGTH), INT32)] * 2, [((1, LENGTH, WIDTH), FLOAT32)]),
            BundleError,
            r"inputs are \{'input_ids': .*, 'number 1': \(\[1, 6\], 'int32'\)\}, the manifest says",
        ),
        (
            _program([], [((1, LENGTH, WIDTH), FLOAT32)]),
            BundleError,
            r"inputs are \{\}, the manifest says \{'input_ids'",
        ),
        (_program([], [], methods=("encode",)), BackendError, "no method forward, only encode"),
    ],
)
def test_a_program_that_is_not_the_manifests_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    versions: dict[str, str],
    program: Any,
    error: type[Exception],
    words: str,
) -> None:
    _install(monkeypatch, _executorch(program))
    bundle, variant = _variant(tmp_path, PROGRAM, "text_encoder")
    with pytest.raises(error, match=words):
        ExecuTorch().load(bundle, variant)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (
            {"torch": ImportError("no module named torch")},
            r"executorch 1\.5\.1 cannot be imported \(no module named torch\); run: .*pip inst",
        ),
        (
            _executorch(None, ("QnnBackend", "OpenvinoBackend")),
            "is built without XnnpackBackend, with QnnBackend, OpenvinoBackend; run: .*pip install",
        ),
        (_executorch(None, ()), "is built without XnnpackBackend, with no delegate; run: .*pip"),
    ],
)
def test_a_runtime_that_cannot_run_programs_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    versions: dict[str, str],
    modules: dict[str, Any],
    words: str,
) -> None:
    _install(monkeypatch, modules)
    with pytest.raises(BackendError, match=words):
        ExecuTorch().load(*_variant(tmp_path, PROGRAM))


def test_a_mac_runs_the_core_ml_delegate_where_the_runtime_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    _system(monkeypatch, "Darwin")
    kind = VariantFiles(target="executorch", delegate="coreml")
    bundle, variant = _variant(tmp_path, kind, "text_encoder")
    program = _program([((1, LENGTH), INT32)], [((1, LENGTH, WIDTH), FLOAT32)])
    _install(monkeypatch, _executorch(program, ("CoreMLBackend",)))
    ExecuTorch().load(bundle, variant)
    _install(monkeypatch, _executorch(program))
    with pytest.raises(BackendError, match="is built without CoreMLBackend, with XnnpackBackend"):
        ExecuTorch().load(bundle, variant)


# --- Core AI -------------------------------------------------------------------------------------


def _asset(component: str, folder: Path) -> list[Path]:
    path = folder / "model.aimodel"
    path.mkdir()
    (path / "main.mlirb").write_bytes(b"ML\xefR and so on")
    return [path]


def _coreai(load: Callable[[Path], Any]) -> dict[str, Any]:
    authoring = SimpleNamespace(AIModelAsset=SimpleNamespace(load=load))
    return {"coreai.authoring": authoring, "coreai.runtime": SimpleNamespace(NDArray=None)}


def test_a_beta_that_nobody_has_tried_is_tried_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    versions["coreai-core"] = "1.1.0b7"
    bundle, variant = _variant(
        tmp_path, VariantFiles(target="iphone", package="coreai", content=_asset)
    )
    assert CoreAI().unsupported_reason(variant) is None

    def load(path: Path) -> Any:
        assert path == bundle.path / variant.model
        raise RuntimeError('Asset version "3.0" is not supported\nmore')

    _install(monkeypatch, _coreai(load))
    words = (
        r'unet/iphone-coreai-fp32: Asset version "3.0" is not supported; made with coreai-core '
        r"unknown, here is 1\.1\.0b7, tested is 1\.0\.0b3: releases of this beta"
    )
    with pytest.raises(BackendError, match=words):
        CoreAI().load(bundle, variant)
    _install(monkeypatch, {"coreai.authoring": ImportError("no AIModelAsset")})
    words = (
        r"1\.1\.0b7 has no usable coreai\.authoring \(no AIModelAsset\); tested is 1\.0\.0b3; run"
    )
    with pytest.raises(BackendError, match=words):
        CoreAI().load(bundle, variant)


def test_an_asset_without_a_program_is_refused(tmp_path: Path, versions: dict[str, str]) -> None:
    with pytest.raises(BundleError, match=r"model\.aimodel holds no Core AI program"):
        CoreAI().load(*_variant(tmp_path, ASSET))


async def _double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def _fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("inside")


def test_coroutines_run_from_any_thread_with_or_without_a_loop() -> None:
    loop = _Loop()

    async def inside() -> int:
        return loop.run(_double(4))

    assert loop.run(_double(3)) == 6
    assert asyncio.run(inside()) == 8
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(loop.run(_double(n)))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2 * n for n in range(8)]


def test_what_a_coroutine_raises_arrives_and_the_loop_lives_on() -> None:
    loop = _Loop()
    with pytest.raises(ValueError, match="inside"):
        loop.run(_fail())
    assert loop.run(_double(1)) == 2
