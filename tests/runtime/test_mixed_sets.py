"""Sets whose variants are of several kinds, each run by the backend that is for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trial_backend
from command_line import CapSys
from tiny_bundles import VariantFiles, build_bundle, fake_functions, write_onnx

import mvsdk
from mvsdk import BackendError, Fake, InputError, Isolation, OnnxRuntime, Pipeline, slim_bundle
from mvsdk.backends import Selection, select
from mvsdk.backends.isolated import Isolated, isolate
from mvsdk.bundle import Bundle
from mvsdk.cli import main
from mvsdk.manifest import VariantSet, Verification

PROMPT = "a rocket flying left"
CPU = VariantFiles(content=write_onnx)
NPU = VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650")
MIXED = {"text_encoder": CPU.id, "unet": NPU.id, "vae_decoder": CPU.id}


class _For(Fake):
    """A backend for some formats, with functions for their graphs."""

    def __init__(self, name: str, *formats: str) -> None:
        super().__init__(fake_functions())
        self._name, self._formats = name, formats

    @property
    def name(self) -> str:
        return self._name

    def describe(self) -> str:
        return f"{self._name} on trial"

    def unsupported_reason(self, variant: Any) -> str | None:
        known = variant.format in self._formats
        return None if known else f"{self._name} does not run {variant.format}"


def _build(out: Path, sets: Mapping[str, Mapping[str, str]], **changes: Any) -> Bundle:
    items = tuple(VariantSet(id=name, variants=item) for name, item in sets.items())
    return build_bundle(out, [CPU], components={"unet": [CPU, NPU]}, sets=items, **changes)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Return a bundle whose denoiser alone runs on an NPU, or all of it on the CPU."""
    cpu = dict.fromkeys(MIXED, CPU.id)
    return _build(tmp_path / "mixed.mvbundle", {"cpu": cpu, "npu-and-cpu": MIXED})


def _offer(monkeypatch: pytest.MonkeyPatch, *ours: Fake, further: tuple[Fake, ...] = ()) -> None:
    monkeypatch.setattr("mvsdk.backends._selection.built_in_backends", lambda: ours)
    monkeypatch.setattr("mvsdk.backends._selection.default_backends", lambda: (*ours, *further))


def _names(choice: Selection) -> dict[str, str]:
    return {name: backend.name for name, backend in choice.backends.items()}


SPLIT = {"text_encoder": "cpu", "unet": "npu", "vae_decoder": "cpu"}


@pytest.mark.parametrize("is_ours", [True, False])
def test_each_variant_runs_on_the_backend_for_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    cpu, npu = _For("cpu", "onnx"), _For("npu", "qnn_context")
    _offer(monkeypatch, *([cpu, npu] if is_ours else [cpu]), further=() if is_ours else (npu,))
    pipeline = mvsdk.load(bundle.path, target="snapdragon")
    choice = pipeline.selection
    assert _names(choice) == SPLIT
    assert (choice.id, choice.label, choice.backend) == ("npu-and-cpu", "npu-and-cpu", npu)
    assert choice.backend_names == "cpu and npu"
    assert choice.describe() == "cpu on trial; npu on trial"
    assert repr(choice) == "Selection(npu-and-cpu on cpu and npu: text_encoder, unet, vae_decoder)"
    assert "npu-and-cpu on cpu and npu, loaded: nothing" in repr(pipeline)
    video = pipeline.generate(PROMPT, seed=3)
    assert cpu.events == [("load", "text_encoder"), ("load", "vae_decoder")]
    assert npu.events == [("load", "unet")]
    assert video.timings is not None
    assert video.timings.backend == "cpu on trial; npu on trial"
    alone = mvsdk.load(bundle.path, backend=Fake(fake_functions()), target="onnx")
    assert video.frames.tobytes() == alone.generate(PROMPT, seed=3).frames.tobytes()
    pipeline.close()
    assert cpu.open_components == npu.open_components == []


def test_the_filters_are_about_the_denoiser(bundle: Bundle) -> None:
    both = _For("both", "onnx", "qnn_context")
    for filters in ({"target": "snapdragon"}, {"precision": "w8a16"}, {"chip": "sm8650"}):
        assert select(bundle, backend=both, **filters).id == "npu-and-cpu"
    for filters in ({"target": "onnx"}, {"precision": "fp32"}, {}):
        choice = select(bundle, backend=both, **filters)
        assert (choice.id, choice.label) == ("cpu", "onnx/fp32")
    with pytest.raises(
        InputError,
        match=r"it holds onnx/fp32, npu-and-cpu \(onnx/fp32 \+ snapdragon/w8a16/sm8650\); choose",
    ):
        select(bundle, target="iphone")


def test_a_backend_that_runs_all_is_not_mixed_with_another(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _For("one", "onnx", "qnn_context"), _For("two", "onnx", "qnn_context")
    _offer(monkeypatch, first, second)
    assert set(_names(select(bundle, target="snapdragon")).values()) == {"one"}
    monkeypatch.setattr(first, "place", lambda variant: "emulator", raising=False)
    assert set(_names(select(bundle, target="snapdragon")).values()) == {"two"}


def test_the_place_of_a_set_is_that_of_its_worst(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, npu = _For("cpu", "onnx"), _For("npu", "qnn_context")
    _offer(monkeypatch, cpu, npu)
    monkeypatch.setattr(npu, "place", lambda variant: "emulator", raising=False)
    assert select(bundle, target="snapdragon").place == "emulator"
    assert select(bundle).id == "cpu"
    monkeypatch.setattr(npu, "place", lambda variant: "accelerator", raising=False)
    assert select(bundle, target="snapdragon").place == "cpu"


def test_a_set_of_which_one_variant_cannot_run_says_which_is_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    _offer(monkeypatch, _For("onnxruntime", "onnx"), _For("other", "coreml"))
    with pytest.raises(BackendError) as caught:
        select(bundle, target="snapdragon")
    assert str(caught.value) == (
        "mixed.mvbundle holds npu-and-cpu (onnx/fp32 + snapdragon/w8a16/sm8650), none runs here: "
        "onnxruntime does not run qnn_context"
    )
    _offer(monkeypatch, _For("onnxruntime", "coreml"), _For("qnn", "qnn_context"))
    with pytest.raises(BackendError, match=r"none runs here: onnxruntime does not run onnx$"):
        select(bundle, target="snapdragon")
    with pytest.raises(BackendError, match=r"none runs here: npu does not run onnx$"):
        select(bundle, target="snapdragon", backend=_For("npu", "qnn_context"))


# --- isolation -----------------------------------------------------------------------------------


def test_what_can_end_the_process_is_isolated_alone(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, npu = _For("onnxruntime", "onnx"), _For("qnn", "qnn_context")
    _offer(monkeypatch, cpu, npu)
    choice = select(bundle, target="snapdragon")
    fragile = isolate(choice, Isolation(which="fragile"), found_by_name=True)
    assert fragile.backends["text_encoder"] is fragile.backends["vae_decoder"] is cpu
    assert isinstance(fragile.backends["unet"], Isolated)
    assert fragile.backend is fragile.backends["unet"]
    assert _names(fragile) == _names(choice)
    everything = isolate(choice, Isolation(), found_by_name=True)
    assert all(isinstance(backend, Isolated) for backend in everything.backends.values())
    assert everything.backends["text_encoder"] is everything.backends["vae_decoder"]


def _partly_isolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> tuple[Pipeline, Pipeline]:
    """Return a pipeline whose denoiser alone is in another process, and one without that."""

    def write(component: str, folder: Path) -> list[Path]:
        (folder / "model.onnx").write_text(deed)
        return [folder / "model.onnx"]

    npu = VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650", content=write)
    sets = (VariantSet(id="mixed", variants=MIXED),)
    bundle = build_bundle(tmp_path / "mixed.mvbundle", [CPU], components={"unet": [npu]}, sets=sets)
    monkeypatch.setattr("mvsdk.backends.isolated.FRAGILE", frozenset({trial_backend.NAME}))
    variants = bundle.manifest.variants_of(bundle.manifest.sets[0])
    cpu = OnnxRuntime()
    choice = Selection(
        id="mixed",
        variants=variants,
        backends={"text_encoder": cpu, "unet": trial_backend.Trial(), "vae_decoder": cpu},
        key=variants["unet"].key,
    )
    apart = isolate(choice, Isolation(which="fragile"), found_by_name=True)
    return Pipeline(bundle, apart), Pipeline(bundle, choice)


@pytest.mark.usefixtures("scratch")
@pytest.mark.skipif(sys.platform == "win32", reason="deaths by signals")
def test_clips_are_the_same_where_one_graph_is_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, together = _partly_isolated(tmp_path, monkeypatch, "work")
    with apart, together:
        here = together.generate(PROMPT, seed=3)
        there = apart.generate(PROMPT, seed=3)
    assert there.frames.tobytes() == here.frames.tobytes()
    assert there.timings is not None
    assert there.timings.backend.endswith("; a backend on trial")


@pytest.mark.usefixtures("scratch")
@pytest.mark.skipif(sys.platform == "win32", reason="deaths by signals")
def test_the_death_of_one_graph_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, _ = _partly_isolated(tmp_path, monkeypatch, "run: once abort")
    with apart:
        with pytest.raises(BackendError, match="trial died with SIGABRT while it ran the graph"):
            apart.generate(PROMPT, seed=3)
        assert apart.generate(PROMPT, seed=3).frames.any()


# --- inspect and slim ----------------------------------------------------------------------------


def _record(variant: str) -> Verification:
    return Verification(
        component="end_to_end",
        variant=variant,
        case=PROMPT,
        metric="psnr",
        value_db=40.0,
        floor_db=30.0,
        passed=True,
        measured_on="emulator",
        reference="PyTorch float32",
    )


def test_inspect_names_what_mixed_sets_are_of(capsys: CapSys, tmp_path: Path) -> None:
    cpu = dict.fromkeys(MIXED, CPU.id)
    sets = {"cpu": cpu, "npu-and-cpu": MIXED}
    records = (_record("cpu"), _record("npu-and-cpu"))
    bundle = _build(tmp_path / "mixed.mvbundle", sets, verification=records)
    assert main(["inspect", str(bundle.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line for line in lines if line.startswith("set ")]
    parts = "text_encoder onnx/fp32, unet snapdragon/w8a16/sm8650, vae_decoder onnx/fp32"
    assert named == [f"set npu-and-cpu: {parts}"]
    assert lines[-2:] == [
        "end to end, cpu: psnr 40.0 (>= 30)",
        "end to end, npu-and-cpu: psnr 40.0 (>= 30)",
    ]


def test_a_mixed_set_stays_whole_for_one_phone(tmp_path: Path) -> None:
    cpu = dict.fromkeys(MIXED, CPU.id)
    records = (_record("cpu"), _record("npu-and-cpu"))
    bundle = _build(
        tmp_path / "mixed.mvbundle", {"cpu": cpu, "npu-and-cpu": MIXED}, verification=records
    )
    slim = slim_bundle(bundle.path, tmp_path / "phone.mvbundle", chip="sm8650").manifest
    assert [item.id for item in slim.sets] == ["npu-and-cpu"]
    ids = {
        name: [variant.id for variant in part.variants] for name, part in slim.components.items()
    }
    assert ids == {name: [variant] for name, variant in MIXED.items()}
    assert [record.variant for record in slim.verification] == ["npu-and-cpu"]
