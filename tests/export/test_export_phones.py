"""Exports for iPhone and ExecuTorch: options, one small bundle of each, and what a reader sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from exporting import Toolchain

import mvsdk
from mvsdk._installed import toolchain_install
from mvsdk.bundle import Bundle

pytestmark = pytest.mark.torch

SMALL = ("--steps", "1", "--height", "32", "--width", "32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "iphon"], "unknown target 'iphon'; known: onnx, snapdragon, iphone, exec"),
        (
            ["--target", "iphone", "--deployment-target", "iOS27", "--format", "coreml"],
            "--deployment-target iOS27 does not go with --format coreml; allowed: iOS17, iOS18",
        ),
        (
            ["--target", "iphone", "--deployment-target", "16"],
            "--deployment-target is 'iOS16', allowed: iOS17, iOS18, iOS26, iOS27",
        ),
        (["--target", "iphone", "--precision", "w8a16"], "unknown precision 'w8a16'; known: fp16"),
        (
            ["--target", "all", "--precision", "w6"],
            "--precision w6 is nothing that snapdragon is made in: w8a16, fp16; add one of these",
        ),
        (["--target", "onnx", "--palette-group", "8"], "--palette-group goes with --target iphone"),
        (["--target", "iphone", "--palette-group", "0"], "--palette-group is 0, allowed: 1 to"),
        (
            ["--target", "iphone", "--palette-group", "8", "--precision", "fp16"],
            "--palette-group goes with --precision w8, w6 or w4, not fp16; leave it out",
        ),
        (
            ["--target", "iphone", "--palette-group", "8", "--deployment-target", "iOS17"],
            "--palette-group goes with --deployment-target iOS18 or later",
        ),
        (
            ["--target", "iphone", "--format", "coreai", "--attention", "split-einsum"],
            "--attention goes with --format coreml; leave it out",
        ),
        (
            ["--target", "iphone", "--format", "coreai", "--chunk-bytes", "65536"],
            "--chunk-bytes goes with --format coreml; leave it out",
        ),
        (
            ["--target", "iphone", "--out", "new.mvbundle", "--resources", "./new.mvbundle"],
            "--resources is './new.mvbundle', where the bundle goes; name another folder",
        ),
        (
            ["--target", "iphone", "--component", "vae_decoder=onnx/fp32", "--resources", "./new"],
            "--resources takes every component as a Core ML package, vae_decoder is made as "
            "onnx-fp32; leave out --component vae_decoder=onnx/fp32, or --resources",
        ),
        (
            ["--target", "onnx", "--component", "vae_decoder=iphone/w8", "--resources", "./new"],
            "text_encoder is made as onnx-fp32, onnx-fp16, onnx-w8a16; leave out --resources",
        ),
        (
            ["--target", "iphone", "--component", "vae_decoder=onnx/fp32", "--delegate", "coreml"],
            "--delegate goes with --target executorch, not iphone, onnx; leave it out",
        ),
        (
            ["--target", "onnx", "--component", "vae_decoder=iphone/fp16", "--palette-group", "8"],
            "--palette-group goes with --precision w8, w6 or w4, not fp16; leave it out",
        ),
        (["--target", "iphone", "--chip", "sm8650"], "--chip goes with --target snapdragon, not"),
        (["--target", "onnx", "--deployment-target", "iOS18"], "--deployment-target goes with"),
        (["--target", "iphone", "--attention", "flash"], "--attention is 'flash', allowed: fused"),
        (["--target", "executorch", "--delegate", "mps"], "--delegate is 'mps', allowed: xnnpack"),
        (["--target", "executorch", "--delegate", "qnn"], "use --target snapdragon for Qualcomm's"),
        (
            ["--target", "executorch", "--delegate", "coreml", "--external-weights"],
            "--external-weights goes with --delegate xnnpack, not coreml, which keeps its weights",
        ),
        (
            ["--target", "iphone", "--compute-units", "ANE"],
            "--compute-units is 'ANE', allowed",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    toolchain: Toolchain, arguments: list[str], message: str
) -> None:
    done = toolchain("export", *arguments, "--dry-run")
    assert done.status == 2
    assert message in done.err


@pytest.mark.parametrize(
    ("made", "options"),
    [
        ("executorch/fp16", ["--delegate", "coreml", "--deployment-target", "iOS17"]),
        ("executorch/fp32", ["--external-weights"]),
        ("iphone/w8", ["--palette-group", "8", "--compute-units", "ALL", "--format", "coreml"]),
        ("iphone/fp16", ["--deployment-target", "iOS27"]),
    ],
)
def test_options_of_a_target_go_with_a_component_that_is_made_for_it(
    toolchain: Toolchain, tmp_path: Path, made: str, options: list[str]
) -> None:
    for package in ("coremltools", "executorch", "coreai_torch"):
        pytest.importorskip(package)
    done = toolchain(
        *("export", "--target", "onnx", "--component", f"vae_decoder={made}", *options),
        *("--dry-run", "--json", "--out", tmp_path / "x.mvbundle"),
    )
    assert done.status == 0, done.err
    assert json.loads(done.out)["overrides"] == {"vae_decoder": made}


def test_missing_extra_is_named(toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvsdk_export.extras.find_spec", lambda name: None)
    for target, extra in (("iphone", "apple"), ("executorch", "executorch")):
        done = toolchain("export", "--target", target, "--dry-run")
        assert toolchain_install(extra) in done.err


def test_all_means_every_phone_in_one_bundle(toolchain: Toolchain, tmp_path: Path) -> None:
    for package in ("coremltools", "coreai_torch", "executorch", "onnxruntime_qnn"):
        pytest.importorskip(package)
    done = toolchain(
        *("export", "--target", "all", "--chip", "sm8650", "--dry-run", "--json"),
        *("--out", tmp_path / "all.mvbundle"),
    )
    assert done.status == 0, done.err
    plan = json.loads(done.out)
    assert [variant["id"] for variant in plan["variants"]] == [
        "snapdragon-sm8650-w8a16",
        "iphone-coreml-w8",
        "iphone-coreai-w8",
        "executorch-xnnpack-w8a8",
    ]
    assert "left out" not in done.err


def test_all_names_what_is_left_out(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime_qnn")
    missing = ("coreai", "coreai_torch", "executorch")
    monkeypatch.setattr(
        "mvsdk_export.commands.targets.find_module", lambda name: None if name in missing else name
    )
    done = toolchain(
        *("export", "--target", "all", "--chip", "sm8650", "--dry-run", "--json"),
        *("--out", tmp_path / "all.mvbundle"),
    )
    assert done.status == 0, done.err
    made = [variant["id"] for variant in json.loads(done.out)["variants"]]
    assert made == ["snapdragon-sm8650-w8a16", "iphone-coreml-w8"]
    assert done.err.splitlines() == [
        f"coreai is left out: coreai, coreai_torch not installed; {toolchain_install('coreai')}",
        f"executorch is left out: executorch not installed; {toolchain_install('executorch')}",
    ]


def test_both_formats_of_iphones_go_into_one_bundle(toolchain: Toolchain, tmp_path: Path) -> None:
    for package in ("coremltools", "coreai_torch"):
        pytest.importorskip(package)
    command = ("export", "--target", "iphone", "--format", "coreml,coreai", "--dry-run", "--json")
    out = ("--out", tmp_path / "x.mvbundle")
    done = toolchain(*command, *out, "--precision", "fp32,w8")
    assert done.status == 0, done.err
    made = [variant["id"] for variant in json.loads(done.out)["variants"]]
    assert made == ["iphone-coreml-w8", "iphone-coreai-fp32", "iphone-coreai-w8"]
    refused = toolchain(*command, *out, "--precision", "fp32")
    assert refused.status == 2
    assert "fp32 is nothing that iphone (coreml) is made in: fp16, w8, w6, w4" in refused.err


@pytest.mark.slow
@pytest.mark.apple
def test_core_ml_bundle_is_verified_makes_clips_and_opens_under_apples_names(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("coremltools")
    out, resources = tmp_path / "phone.mvbundle", tmp_path / "Resources"
    done = toolchain(
        *("export", "--target", "iphone", "--precision", "fp16,w6", "--json", *SMALL),
        *("--checkpoint", tiny_model_folder, "--out", out, "--resources", resources),
        *("--chunk-bytes", "400000", "--compute-units", "ALL"),
    )
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert all(record["passed"] for record in report["verification"])
    assert report["seconds"].keys() == {"iphone-coreml-fp16", "iphone-coreml-w6"}
    assert report["compression"]["iphone-coreml-w6"]["transformer"]["bits"] < 16
    (warning,) = report["warnings"]["iphone-coreml-fp16"]["transformer"]
    assert warning["what"].startswith("slices that start within the last axis, as slice_by_index")
    bundle = Bundle.open(out, verify=True)
    for part in bundle.manifest.components.values():
        for variant in part.variants:
            assert variant.deployment_target == "iOS18"
            assert variant.compute_unit == "ALL"
            assert variant.delegation is not None
            assert variant.delegation.basis == "rules"
    names = {path.name for path in resources.iterdir()}
    assert {"vocab.json", "README.txt"} <= names
    for stem in ("TextEncoder", "MultiModalDiffusionTransformerChunk1", "VAEDecoder"):
        assert any(name.startswith(stem) for name in names)
    clips = {
        precision: mvsdk.load(out, target="iphone", precision=precision).generate("a cat", seed=3)
        for precision in ("fp16", "w6")
    }
    difference = clips["fp16"].frames.astype(int) - clips["w6"].frames
    assert 0 < np.abs(difference).mean() < 6


@pytest.mark.slow
@pytest.mark.executorch
def test_executorch_bundle_is_verified_and_makes_the_clip_of_the_reference(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("executorch")
    out = tmp_path / "phone.mvbundle"
    done = toolchain(
        *("export", "--target", "executorch,onnx", "--precision", "fp32", "--json", *SMALL),
        *("--checkpoint", tiny_model_folder, "--out", out),
    )
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert all(record["passed"] for record in report["verification"])
    clips = [
        mvsdk.load(out, backend=backend).generate("a cat", seed=3).frames.astype(int)
        for backend in ("executorch", "onnxruntime")
    ]
    assert np.abs(clips[0] - clips[1]).max() <= 1
