"""Bundles whose components are not all made in the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from exporting import SIZE, Toolchain

import mvsdk
from mvsdk.bundle import Bundle
from mvsdk.devices import find_chipset
from mvsdk.manifest import END_TO_END
from mvsdk_export.checkpoints import open_model
from mvsdk_export.families import find_recipe
from mvsdk_export.planning.request import ExportRequest, VariantOverride, plan_variants

pytestmark = pytest.mark.torch


@pytest.fixture
def wanted(tiny_model_folder: Path, tmp_path: Path) -> ExportRequest:
    """Return what asks for two precisions."""
    return ExportRequest(
        folder=open_model(tiny_model_folder, find_recipe("sticker")),
        variants=plan_variants("onnx", ["fp32", "fp16"]),
        num_frames=8,
        height=32,
        width=32,
        steps=(1,),
        out=tmp_path / "x.mvbundle",
    )


def ids_of(request: ExportRequest) -> dict[str, list[str]]:
    return {item.id: [plan.id for plan in item.plans.values()] for item in request.sets}


def test_components_are_made_alike_unless_told_otherwise(wanted: ExportRequest) -> None:
    assert ids_of(wanted) == {"onnx-fp32": ["onnx-fp32"] * 3, "onnx-fp16": ["onnx-fp16"] * 3}
    assert [plan.id for plan in wanted.plans_of("transformer")] == ["onnx-fp32", "onnx-fp16"]


def test_a_set_of_several_kinds_is_called_so_and_one_that_is_not_is_not(
    wanted: ExportRequest,
) -> None:
    half = VariantOverride(spec="onnx", precision="fp16")
    request = replace(wanted, overrides={"transformer": half})
    assert ids_of(request) == {
        "onnx-fp32-mixed": ["onnx-fp32", "onnx-fp16", "onnx-fp32"],
        "onnx-fp16": ["onnx-fp16"] * 3,
    }
    assert [plan.id for plan in request.plans_of("transformer")] == ["onnx-fp16"]


def test_sets_of_the_same_variants_are_one(wanted: ExportRequest) -> None:
    half = VariantOverride(spec="onnx", precision="fp16")
    names = [part.name for part in wanted.folder.recipe.components]
    request = replace(wanted, overrides=dict.fromkeys(names, half))
    assert ids_of(request) == {"onnx-fp16": ["onnx-fp16"] * 3}


def test_what_is_compiled_for_a_chip_is_so_in_the_set_of_that_chip(wanted: ExportRequest) -> None:
    chips = [find_chipset(name) for name in ("sm8650", "sm8750")]
    request = replace(
        wanted,
        variants=plan_variants("snapdragon", ["w8a16"], chips=chips),
        overrides={
            "text_encoder": VariantOverride(spec="onnx", precision="fp32"),
            "vae_decoder": VariantOverride(spec="snapdragon", precision="fp16"),
        },
    )
    assert ids_of(request) == {
        f"snapdragon-{chip}-w8a16-mixed": [
            "onnx-fp32",
            f"snapdragon-{chip}-w8a16",
            f"snapdragon-{chip}-fp16",
        ]
        for chip in ("sm8650", "sm8750")
    }
    assert list(request.chips) == chips
    assert set(request.chip_precisions) == {"w8a16", "fp16"}


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ("transformer", "--component 'transformer' is not NAME=TARGET/PRECISION"),
        ("transformer=onnx", "--component 'transformer=onnx' is not NAME=TARGET/PRECISION"),
        ("unet=onnx/fp16", "--component is 'unet', allowed: text_encoder, transformer, vae_"),
        ("transformer=htp/fp16", "--component is 'htp', allowed: onnx, snapdragon, iphone, exec"),
        ("transformer=onnx/w4", "--component transformer=onnx is 'w4', allowed: fp32, fp16, w8a"),
        ("transformer=snapdragon/fp16", "is compiled for the chip that the others are for"),
    ],
)
def test_wrong_component_is_one_line(
    toolchain: Toolchain, tiny_model_folder: Path, component: str, message: str
) -> None:
    done = toolchain(
        *("export", "--target", "onnx", "--checkpoint", tiny_model_folder, *SIZE, "--dry-run"),
        *("--component", component),
    )
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_mixed_bundle_is_verified_and_makes_clips(
    toolchain: Toolchain, tiny_model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mixed.mvbundle"
    done = toolchain(
        *("export", "--target", "onnx", "--precision", "fp32", *SIZE, "--steps", "1"),
        *("--component", "transformer=onnx/fp16", "--checkpoint", tiny_model_folder),
        *("--out", out, "--json"),
    )
    assert done.status == 0, done.err
    assert list(json.loads(done.out)["seconds"]) == ["onnx-fp32-mixed"]
    manifest = Bundle.open(out, verify=True).manifest
    (chosen,) = manifest.sets
    assert dict(chosen.variants) == {
        "text_encoder": "onnx-fp32",
        "transformer": "onnx-fp16",
        "vae_decoder": "onnx-fp32",
    }
    floors = find_recipe("sticker").floors_db
    found = {(r.component, r.variant, r.floor_db) for r in manifest.verification}
    assert ("transformer", "onnx-fp16", floors["fp16"]["transformer"]) in found
    assert ("vae_decoder", "onnx-fp32", floors["fp32"]["vae_decoder"]) in found
    weakest = min(floors[precision][END_TO_END] for precision in ("fp32", "fp16"))
    assert (END_TO_END, "onnx-fp32-mixed", weakest) in found
    with mvsdk.load(out, precision="fp16") as pipeline:
        assert pipeline.selection.label == "onnx-fp32-mixed"
        assert pipeline.generate("a cat", seed=3).frames.shape == (8, 32, 32, 3)
