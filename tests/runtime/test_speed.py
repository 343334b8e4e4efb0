"""What runs where several variants could: what is really here, what is fast, and what is said."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from macs import Mac, on_mac
from tiny_bundles import VariantFiles, build_bundle, write_onnx

import mvsdk
from mvsdk import CoreML, Fake, InputError
from mvsdk._installed import pip_install
from mvsdk.backends import select, slow_note
from mvsdk.bundle import Bundle
from mvsdk.cli import main

PROMPT = "a rocket flying left"
ONNX = [VariantFiles(precision=precision) for precision in ("w8a16", "fp16", "fp32")]
XNNPACK = [
    VariantFiles(target="executorch", delegate="xnnpack", precision=precision)
    for precision in ("fp32", "w8a8")
]
SNAPDRAGON = VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650")
IPHONE = VariantFiles(target="iphone", package="coreml", precision="w8")
COREAI = VariantFiles(target="iphone", package="coreai", precision="w8")
LARGE = {"unet": {"flops": 1e12}}
SMALL = {"unet": {"flops": 1e6}}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return what is installed here, all that can be on x86-64 at first."""
    found = {"executorch", "coreai-core", "onnxruntime_qnn"}
    version = importlib.metadata.version

    def installed_version(name: str) -> str:
        if name not in ("executorch", "coreai-core"):
            return version(name)
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", installed_version)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in found or None)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("mvsdk.backends._registry.entry_points", lambda *, group: [])
    return found


def _bundle(tmp_path: Path, *variants: VariantFiles, **changes: Any) -> Bundle:
    return build_bundle(tmp_path / "some.mvbundle", variants, **changes)


def _chosen(bundle: Bundle, **options: Any) -> str:
    return str(select(bundle, **options).key)


class _Checker(Fake):
    """Stands for the toolchain's checker."""

    @property
    def name(self) -> str:
        return "coreml-checker"

    def unsupported_reason(self, variant: Any) -> str | None:
        return None if variant.format == "coreml" else "the checker runs the format coreml"

    def place(self, variant: Any) -> str:
        return "emulator"


def _offer(monkeypatch: pytest.MonkeyPatch, *backends: Any) -> None:
    class Point:
        def __init__(self, backend: Any) -> None:
            self.name, self.value, self._backend = backend.name, "elsewhere", backend

        def load(self) -> Any:
            return lambda: self._backend

    def points(*, group: str) -> Sequence[Point]:
        return [Point(backend) for backend in backends]

    monkeypatch.setattr("mvsdk.backends._registry.entry_points", points)


# --- what is chosen ------------------------------------------------------------------------------


def test_a_bundle_for_every_phone_runs_on_the_cpu_and_not_on_the_emulator(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, SNAPDRAGON, IPHONE, XNNPACK[1])
    assert _chosen(bundle) == "executorch/xnnpack/w8a8"
    assert select(bundle).backend.name == "executorch"
    assert select(bundle).place == "cpu"


def test_many_clips_go_by_the_time_of_each(tmp_path: Path) -> None:
    left = [*ONNX, *XNNPACK, SNAPDRAGON]
    order: list[str] = []
    while left:
        bundle = _bundle(tmp_path / str(len(left)), *left, costs=SMALL)
        choice = select(bundle, clips=1_000_000_000)
        order.append(str(choice.key))
        left = [files for files in left if files.id != choice.variants["unet"].id]
    assert order == [
        "executorch/xnnpack/w8a8",
        "executorch/xnnpack/fp32",
        "onnx/fp32",
        "onnx/fp16",
        "onnx/w8a16",
        "snapdragon/w8a16/sm8650",
    ]


def test_some_clips_of_a_small_model_do_not_wait_for_a_slow_import(tmp_path: Path) -> None:
    small = _bundle(tmp_path, *ONNX, *XNNPACK, costs=SMALL)
    assert _chosen(small, clips=1) == _chosen(small) == "onnx/fp32"
    assert str(mvsdk.load(small.path).selection.key) == "onnx/fp32"
    assert str(mvsdk.load(small.path, clips=10**9).selection.key) == "executorch/xnnpack/w8a8"


def test_one_clip_of_a_large_model_is_worth_the_wait(tmp_path: Path) -> None:
    large = _bundle(tmp_path, *ONNX, *XNNPACK, costs=LARGE)
    assert _chosen(large, clips=1) == "executorch/xnnpack/w8a8"


def test_without_costs_a_clip_is_taken_to_be_short(tmp_path: Path) -> None:
    assert _chosen(_bundle(tmp_path, *ONNX, *XNNPACK)) == "onnx/fp32"


@pytest.mark.parametrize("clips", [0, -1])
def test_no_clips_are_refused(tmp_path: Path, clips: int) -> None:
    bundle = _bundle(tmp_path, *ONNX)
    with pytest.raises(InputError, match=f"clips is {clips}; allowed: 1 and above"):
        mvsdk.load(bundle.path, clips=clips)


def test_what_is_not_installed_is_passed_over(tmp_path: Path, installed: set[str]) -> None:
    bundle = _bundle(tmp_path, SNAPDRAGON, ONNX[0], XNNPACK[1])
    installed.discard("executorch")
    assert _chosen(bundle) == "onnx/w8a16"
    assert _chosen(_bundle(tmp_path / "n", SNAPDRAGON, XNNPACK[1])) == "snapdragon/w8a16/sm8650"


def test_a_mac_runs_core_ml_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_mac(monkeypatch, Mac({}))
    bundle = _bundle(tmp_path, *ONNX, *XNNPACK, COREAI, IPHONE)
    choice = select(bundle, clips=1)
    assert (choice.backend.name, str(choice.key)) == ("coreml", "iphone/coreml/w8")
    assert choice.place == "accelerator"
    assert slow_note(bundle, choice) is None


def test_a_mac_of_intel_and_packages_for_the_cpu_are_no_accelerators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_mac(monkeypatch, Mac({}))
    (variant,) = _bundle(tmp_path, IPHONE).manifest.components["unet"].variants
    assert CoreML().place(variant) == "accelerator"
    assert CoreML(compute_units="CPU_ONLY").place(variant) == "cpu"
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert CoreML().place(variant) == "cpu"


@pytest.mark.parametrize(
    ("machine", "soc", "chosen"),
    [
        ("aarch64", "SM8650\n", "snapdragon/w8a16/sm8650"),
        ("aarch64", "SM8550\n", "onnx/fp32"),  # its NPU takes nothing that is for another chip
        ("aarch64", None, "onnx/fp32"),
        ("x86_64", "SM8650\n", "onnx/fp32"),
    ],
)
def test_an_npu_comes_first_where_it_is_the_one_that_graphs_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, soc: str | None, chosen: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    file = tmp_path / "machine"
    if soc is not None:
        file.write_text(soc)
    monkeypatch.setattr("mvsdk.backends.qnn._SOC", file)
    bundle = _bundle(tmp_path, *ONNX, SNAPDRAGON)
    assert _chosen(bundle) == chosen
    assert _chosen(bundle, target="snapdragon") == "snapdragon/w8a16/sm8650"
    alone = _bundle(tmp_path / "alone", SNAPDRAGON)
    assert (slow_note(alone, select(alone)) is None) == (machine == "aarch64")


def test_a_backend_of_others_comes_before_an_emulator_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hardware(_Checker):
        @property
        def name(self) -> str:
            return "hardware"

        def place(self, variant: Any) -> str:
            return "accelerator"

    bundle = _bundle(tmp_path, SNAPDRAGON, IPHONE)
    assert _chosen(bundle) == "snapdragon/w8a16/sm8650"
    _offer(monkeypatch, _Checker({}), Hardware({}))
    choice = select(bundle)
    assert (choice.backend.name, str(choice.key)) == ("hardware", "iphone/coreml/w8")


# --- what is said --------------------------------------------------------------------------------


def _note(bundle: Bundle) -> str | None:
    return slow_note(bundle, select(bundle, clips=1))


def test_nothing_is_said_of_what_is_fast(tmp_path: Path) -> None:
    assert _note(_bundle(tmp_path, *ONNX, *XNNPACK, SNAPDRAGON)) is None
    assert _note(_bundle(tmp_path / "x", *XNNPACK)) is None


EXPORT = "a bundle for executorch is faster here (XNNPACK, w8a8): mvsdk export --target executorch"


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (SNAPDRAGON, "Qualcomm's emulator"),
        (COREAI, "Core AI away from Apple's systems"),
        (IPHONE, "a checker of Core ML packages"),
        (ONNX[0], "w8a16 on a CPU"),
    ],
    ids=lambda x: getattr(x, "id", ""),
)
def test_what_only_checks_numbers_is_named_with_the_export_that_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: VariantFiles, what: str
) -> None:
    _offer(monkeypatch, _Checker({}))
    assert _note(_bundle(tmp_path, files)) == f"this is {what}, for checking numbers; {EXPORT}"


def test_what_is_fast_and_lacks_a_package_is_named_with_it(
    tmp_path: Path, installed: set[str]
) -> None:
    installed.discard("executorch")
    note = _note(_bundle(tmp_path, SNAPDRAGON, XNNPACK[1])) or ""
    assert note.startswith(
        "this is Qualcomm's emulator, for checking numbers; this bundle's executorch/xnnpack/w8a8 "
        "is faster here, but target executorch needs the package executorch; run: "
    )


def test_a_mac_that_lacks_coremltools_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_mac(monkeypatch, None)
    _offer(monkeypatch, _Checker({}))
    assert (_note(_bundle(tmp_path, IPHONE)) or "").endswith(
        "this bundle's iphone/coreml/w8 is faster here, but format coreml needs the package "
        f"coremltools on a Mac; run: {pip_install('coremltools')}"
    )


@pytest.fixture
def checking(tmp_path: Path) -> Path:
    """Return a bundle of which only w8a16 for ONNX Runtime is there, with real graphs."""
    return _bundle(tmp_path, VariantFiles(precision="w8a16", content=write_onnx)).path


def _generate(bundle: Path, *options: str) -> None:
    out = str(bundle.parent / "clip.npy")
    argv = ["generate", PROMPT, "--bundle", str(bundle), "-o", out, "--overwrite", *options]
    assert main(argv) == 0


def test_the_command_line_notes_what_is_slow_before_the_summary(
    checking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _generate(checking)
    note, summary = capsys.readouterr().err.splitlines()
    assert note == f"note: this is w8a16 on a CPU, for checking numbers; {EXPORT}"
    assert "onnx/w8a16 on ONNX Runtime" in summary


@pytest.mark.parametrize(
    "options",
    [("--target", "onnx"), ("--precision", "w8a16"), ("--backend", "onnxruntime")],
    ids=" ".join,
)
def test_whoever_chooses_is_not_told(
    checking: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    _generate(checking, *options)
    (summary,) = capsys.readouterr().err.splitlines()
    assert summary.startswith("seed 0, ")


def test_the_command_line_chooses_for_one_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = _bundle(tmp_path, VariantFiles(content=write_onnx), *XNNPACK)
    _generate(bundle.path)
    (summary,) = capsys.readouterr().err.splitlines()
    assert "onnx/fp32 on ONNX Runtime" in summary
