"""Selection: which variants run, on which backend, and what is said where none does."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_bundles import VariantFiles, build_bundle

import mvsdk
from mvsdk import (
    BackendError,
    BundleError,
    CoreAI,
    CoreML,
    ExecuTorch,
    Fake,
    InputError,
    OnnxRuntime,
    Qnn,
)
from mvsdk._installed import toolchain_install
from mvsdk.backends import default_backends, find_backend, further_backends, qnn, select
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset

MIXED = [
    VariantFiles(target="snapdragon", precision="fp16", chip="sm8650"),
    VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650"),
    VariantFiles(target="snapdragon", precision="w8a16", chip="sm8750"),
    VariantFiles(target="onnx", precision="w8a16"),
    VariantFiles(target="onnx", precision="fp32"),
]
PHONES = [
    VariantFiles(target="iphone", package="coreai", precision="fp16"),
    VariantFiles(target="iphone", package="coreml", precision="fp32"),
    VariantFiles(target="iphone", package="coreml", precision="w4"),
    VariantFiles(target="iphone", package="coreml", precision="w8"),
    VariantFiles(target="executorch", delegate="coreml", precision="fp16"),
    VariantFiles(target="executorch", delegate="xnnpack", precision="w8a8"),
    VariantFiles(target="executorch", delegate="xnnpack", precision="fp32"),
    VariantFiles(target="executorch", delegate="qnn", precision="w8a16", chip="sm8650"),
]


@pytest.fixture
def mixed(tmp_path: Path) -> Bundle:
    return build_bundle(tmp_path / "mixed.mvbundle", MIXED)


@pytest.fixture
def phones(tmp_path: Path) -> Bundle:
    """Return a bundle of iphone and executorch alone."""
    return build_bundle(tmp_path / "phones.mvbundle", PHONES)


class _EntryPoint:
    """Stands for an entry point of another package."""

    def __init__(self, name: str, made: object) -> None:
        self.name, self.value, self._made = name, f"elsewhere:{name}", made

    def load(self) -> Any:
        if isinstance(self._made, Exception):
            raise self._made
        return lambda: self._made


class _Named(Fake):
    """A backend that runs one format."""

    def __init__(self, name: str, format_: str) -> None:
        super().__init__({})
        self._name, self._format = name, format_

    @property
    def name(self) -> str:
        return self._name

    def unsupported_reason(self, variant: Any) -> str | None:
        return None if variant.format == self._format else f"{self._name} runs {self._format}"


def _offer(monkeypatch: pytest.MonkeyPatch, *points: _EntryPoint) -> None:
    def found(*, group: str) -> Sequence[_EntryPoint]:
        assert group == "mvsdk.backends"
        return points

    monkeypatch.setattr("mvsdk.backends._registry.entry_points", found)


def _uninstall(monkeypatch: pytest.MonkeyPatch, *distributions: str) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in distributions:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)


def _chosen(bundle: Bundle, **filters: Any) -> str:
    choice = select(bundle, backend=Fake({}), **filters)
    assert [variant.key for variant in choice.variants.values()] == [choice.key] * 3
    return str(choice.key)


def test_default_is_fp32_on_this_computer(mixed: Bundle) -> None:
    choice = select(mixed)
    assert str(choice.key) == "onnx/fp32"
    assert choice.backend.name == "onnxruntime"


def test_filters_narrow_the_choice(mixed: Bundle) -> None:
    assert _chosen(mixed, target="snapdragon") == "snapdragon/w8a16/sm8650"
    assert _chosen(mixed, precision="fp16") == "snapdragon/fp16/sm8650"
    assert _chosen(mixed, chip="sm8750") == "snapdragon/w8a16/sm8750"
    assert _chosen(mixed, chip="Snapdragon 8 Elite") == "snapdragon/w8a16/sm8750"
    assert _chosen(mixed, precision="w8a16") == "onnx/w8a16"


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"target": "qnm"}, "no variant with target=qnm in mixed.mvbundle; it holds snapdragon/fp"),
        ({"precision": "int4"}, "precision=int4"),
        ({"target": "onnx", "chip": "sm8650"}, "target=onnx chip=sm8650"),
        ({"chip": "sm8550"}, "chip=sm8550 .* it holds .*snapdragon/w8a16/sm8750"),
        ({"chip": "sm9999"}, "unknown chip 'sm9999'.* known: "),
    ],
)
def test_what_the_bundle_lacks_is_refused_with_what_it_holds(
    mixed: Bundle, filters: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        select(mixed, **filters)


def test_a_kind_that_one_component_lacks_is_not_mixed_with_another(tmp_path: Path) -> None:
    onnx, npu = MIXED[4], MIXED[1]
    bundle = build_bundle(
        tmp_path / "a.mvbundle", [onnx, npu], components={"unet": [npu], "vae_decoder": [npu, onnx]}
    )
    assert _chosen(bundle) == "snapdragon/w8a16/sm8650"
    with pytest.raises(InputError, match="it holds snapdragon/w8a16/sm8650;"):
        select(bundle, target="onnx")
    with pytest.raises(BundleError, match=r"sets is a list of 0, expected 1 to 256 .*\[D12\]"):
        build_bundle(tmp_path / "b.mvbundle", [onnx], components={"unet": [npu]})


def test_a_backend_that_cannot_run_the_choice_says_why(mixed: Bundle) -> None:
    with pytest.raises(
        BackendError, match="none runs here: ONNX Runtime on the CPU runs the format"
    ):
        select(mixed, backend=OnnxRuntime(), target="snapdragon")
    with pytest.raises(
        BackendError, match="none runs here: QNN runs the format qnn_context, not onnx"
    ):
        select(mixed, backend=Qnn(), target="onnx")


def test_snapdragon_without_its_extra_names_the_command(
    mixed: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install onnxruntime-qnn"):
        select(mixed, target="snapdragon")
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    with pytest.raises(BackendError, match="pip install onnxruntime-qnn"):
        qnn.register(object())


def test_chips_of_variants_are_those_of_the_table(mixed: Bundle) -> None:
    chip = select(mixed, backend=Fake({}), chip="sm8750").variants["unet"].chip
    assert chip == find_chipset("sm8750").chip


# --- targets of phones ---------------------------------------------------------------------------


def test_phones_come_after_computers_and_each_in_its_own_order(phones: Bundle) -> None:
    assert _chosen(phones) == "executorch/xnnpack/w8a8"
    assert _chosen(phones, target="iphone") == "iphone/coreml/w8"
    assert _chosen(phones, target="executorch", precision="fp16") == "executorch/coreml/fp16"
    assert _chosen(phones, target="iphone", precision="fp16") == "iphone/coreai/fp16"
    assert _chosen(phones, target="iphone", precision="fp32") == "iphone/coreml/fp32"


def test_formats_and_delegates_are_filters(phones: Bundle) -> None:
    assert _chosen(phones, format="coreai") == "iphone/coreai/fp16"
    assert _chosen(phones, format="executorch", precision="w8a8") == "executorch/xnnpack/w8a8"
    assert _chosen(phones, format="qnn") == "executorch/qnn/w8a16/sm8650"
    assert _chosen(phones, format="coreml", target="executorch") == "executorch/coreml/fp16"
    assert _chosen(phones, format="coreml") == "iphone/coreml/w8"
    assert _chosen(phones, format="coreml", target="iphone") == "iphone/coreml/w8"
    with pytest.raises(InputError, match=r"no variant with target=iphone format=onnx in phones"):
        select(phones, target="iphone", format="onnx")


def test_computers_come_before_phones(tmp_path: Path) -> None:
    bundle = build_bundle(tmp_path / "all.mvbundle", [*PHONES, *MIXED])
    assert _chosen(bundle) == "onnx/fp32"
    assert _chosen(bundle, precision="w8a16") == "onnx/w8a16"
    assert _chosen(bundle, chip="sm8650") == "snapdragon/w8a16/sm8650"


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (
            {"target": "executorch"},
            "needs the package executorch; run: .*pip install executorch torch",
        ),
        ({"format": "coreai"}, "the package coreai-core; run: .*pip install coreai-core=="),
        (
            {"format": "coreml", "target": "iphone"},
            re.escape(f"on any; run: {toolchain_install('apple')}"),
        ),
        ({"format": "qnn"}, "the delegate qnn runs on a phone with a Snapdragon chip; use xnnpack"),
        ({"format": "coreml"}, "the delegate coreml runs on Apple's systems; use xnnpack here"),
    ],
)
def test_what_is_missing_is_named_by_its_extra(
    phones: Bundle, monkeypatch: pytest.MonkeyPatch, filters: dict[str, str], reason: str
) -> None:
    _offer(monkeypatch)
    _uninstall(monkeypatch, "executorch", "coreai-core")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(BackendError, match=reason):
        select(phones, **filters)


def test_every_missing_extra_is_named_once(phones: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch)
    _uninstall(monkeypatch, "executorch", "coreai-core")
    with pytest.raises(BackendError) as caught:
        select(phones)
    for command in (
        "install executorch torch",
        "install coreai-core==",
        toolchain_install("apple"),
    ):
        assert str(caught.value).count(command) == 1


# --- backends of other packages ------------------------------------------------------------------


def test_default_backends_are_our_own_and_then_others_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [_EntryPoint(name, _Named(name, "coreml")) for name in ("zebra", "ant")]
    _offer(monkeypatch, *others)
    names = [backend.name for backend in default_backends()]
    assert names == ["onnxruntime", "qnn", "executorch", "coreml", "coreai", "ant", "zebra"]
    kinds = [type(backend) for backend in default_backends()[:5]]
    assert kinds == [OnnxRuntime, Qnn, ExecuTorch, CoreML, CoreAI]


def test_another_package_runs_what_no_backend_of_ours_does(
    phones: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer(monkeypatch, _EntryPoint("coreml-checker", _Named("coreml-checker", "coreml")))
    choice = select(phones, target="iphone", precision="w4")
    assert (choice.backend.name, str(choice.key)) == ("coreml-checker", "iphone/coreml/w4")


def test_the_checkers_own_reason_is_told_where_it_is_there(
    phones: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = _Named("coreml-checker", "coreml")
    monkeypatch.setattr(checker, "unsupported_reason", lambda variant: "the checker needs torch")
    _offer(monkeypatch, _EntryPoint("coreml-checker", checker))
    with pytest.raises(BackendError, match=r"none runs here: the checker needs torch$"):
        select(phones, target="iphone", format="coreml")


def test_others_are_not_loaded_where_our_own_will_do(
    mixed: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*, group: str) -> Any:
        pytest.fail("looked for backends of other packages")

    monkeypatch.setattr("mvsdk.backends._registry.entry_points", loaded)
    assert select(mixed).backend.name == "onnxruntime"
    assert find_backend("onnxruntime").name == "onnxruntime"


def test_a_broken_package_breaks_no_other(phones: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(
        monkeypatch,
        _EntryPoint("broken", ImportError("no module named torch")),
        _EntryPoint("odd", "text"),
        _EntryPoint("sound", _Named("sound", "coreai")),
    )
    further = further_backends()
    assert list(further.loaded) == ["sound"]
    assert further.failed == {
        "broken": "elsewhere:broken does not load (ImportError: no module named torch)",
        "odd": "elsewhere:odd gives a str, not a backend",
    }
    _uninstall(monkeypatch, "coreai-core")
    assert select(phones, format="coreai").backend.name == "sound"
    with pytest.raises(BackendError, match=r"backend broken: elsewhere:broken does not load \(Imp"):
        find_backend("broken")


def test_backends_have_names(phones: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, _EntryPoint("mine", _Named("mine", "coreai")))
    assert isinstance(find_backend("coreai"), CoreAI)
    pipeline = mvsdk.load(phones.path, backend="mine")
    assert (pipeline.selection.backend.name, str(pipeline.selection.key)) == (
        "mine",
        "iphone/coreai/fp16",
    )
    with pytest.raises(
        InputError, match=r"unknown backend 'nobody'; known: onnxruntime, qnn, exec"
    ):
        mvsdk.load(phones.path, backend="nobody")
    with pytest.raises(
        BackendError, match="none runs here: ONNX Runtime on the CPU runs the format"
    ):
        mvsdk.load(phones.path, backend="onnxruntime")
