"""A bundle for one phone: what stays of a bundle for many, and that it makes the same clips."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import CapSys, refusal
from tiny_bundles import VariantFiles, build_bundle, write_onnx

import mvsdk
from mvsdk import BundleError, InputError, OutputError, slim_bundle
from mvsdk.bundle import Bundle
from mvsdk.cli import main
from mvsdk.manifest import Licence, Verification

PROMPT = "a rocket flying left"
MANY = [
    VariantFiles(content=write_onnx),
    VariantFiles(target="snapdragon", precision="fp16", chip="sm8650"),
    VariantFiles(target="snapdragon", precision="w8a16", chip="sm8650"),
    VariantFiles(target="snapdragon", precision="w8a16", chip="sm8750"),
    VariantFiles(target="iphone", package="coreml", precision="w8"),
]


def _record(component: str, variant: str) -> Verification:
    return Verification(
        component=component,
        variant=variant,
        case=PROMPT,
        metric="psnr",
        value_db=40.0,
        floor_db=30.0,
        passed=True,
        measured_on="emulator",
        reference="PyTorch float32",
    )


@pytest.fixture
def many(tmp_path: Path) -> Bundle:
    """Return a bundle for many phones, with a licence's text, costs, records and an extension."""
    plain = build_bundle(tmp_path / "plain.mvbundle", MANY)
    text = tmp_path / "CC0.txt"
    text.write_text("all rights given away")
    with mvsdk.BundleWriter(tmp_path / "many.mvbundle") as writer:
        for ref in plain.manifest.files():
            writer.add_file(ref.path, source=plain.file(ref))
        licence = writer.add_file("licences/CC0.txt", source=text)
        ids = [variant.id for variant in plain.manifest.components["unet"].variants]
        return writer.commit(
            replace(
                plain.manifest,
                licences=(Licence(name="CC0-1.0", applies_to="everything", text_file=licence),),
                costs={"unet": {"parameters": 9.0}},
                verification=tuple(
                    _record(component, variant)
                    for component in ("unet", "end_to_end")
                    for variant in ids
                ),
                extensions={"x-note": {"kept": True}},
            )
        )


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_fits_stays_and_nothing_else(many: Bundle, tmp_path: Path) -> None:
    before = _files(many.path)
    slim = slim_bundle(many.path, tmp_path / "phone.mvbundle", chip="sm8650", precision="w8a16")
    kept = "snapdragon-sm8650-w8a16"
    for part in slim.manifest.components.values():
        assert [variant.id for variant in part.variants] == [kept]
    assert {record.variant for record in slim.manifest.verification} == {kept}
    assert {record.component for record in slim.manifest.verification} == {"unet", "end_to_end"}
    assert [item.id for item in slim.manifest.sets] == [kept]
    for name in ("name", "programs", "samplers", "tokenizers", "source", "licences", "costs"):
        assert getattr(slim.manifest, name) == getattr(many.manifest, name)
    assert slim.manifest.extensions == many.manifest.extensions
    models = {f"components/{name}/{kept}/model.onnx" for name in slim.manifest.components}
    assert _files(slim.path) == {
        "manifest.json",
        "tokenizer/vocab.json",
        "licences/CC0.txt",
        *models,
    }
    Bundle.open(slim.path, verify=True)
    assert _files(many.path) == before


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        ({"chip": "xiaomi 14"}, ["snapdragon/fp16/sm8650", "snapdragon/w8a16/sm8650"]),
        ({"target": "iphone", "format": "coreml"}, ["iphone/coreml/w8"]),
        (
            {"precision": "w8a16"},
            ["snapdragon/w8a16/sm8650", "snapdragon/w8a16/sm8750"],
        ),
        ({"target": "onnx"}, ["onnx/fp32"]),
    ],
    ids=str,
)
def test_the_choice_is_that_of_load(
    many: Bundle, tmp_path: Path, chosen: dict[str, str], kinds: list[str]
) -> None:
    slim = slim_bundle(many.path, tmp_path / "phone.mvbundle", **chosen)
    for part in slim.manifest.components.values():
        assert [str(variant.key) for variant in part.variants] == kinds


def test_the_slim_bundle_makes_the_same_bytes(many: Bundle, tmp_path: Path) -> None:
    slim = slim_bundle(many.path, tmp_path / "phone.mvbundle", target="onnx")
    shutil.rmtree(many.path.parent / "plain.mvbundle")
    with mvsdk.load(many.path, target="onnx") as pipeline:
        whole = pipeline.generate(PROMPT, seed=7).frames
    shutil.rmtree(many.path)
    with mvsdk.load(slim.path) as pipeline:
        assert pipeline.generate(PROMPT, seed=7).frames.tobytes() == whole.tobytes()


def test_a_file_beside_a_model_stays_though_another_variant_lists_it(tmp_path: Path) -> None:
    """Two variants in one folder: a graph may read what only the other one lists."""

    def together(component: str, folder: Path) -> list[Path]:
        shared = folder.parent / "shared"
        shared.mkdir(exist_ok=True)
        model = shared / f"{folder.name}.onnx"
        model.write_bytes(folder.name.encode())
        return [model]

    kinds = [
        VariantFiles(content=together),
        VariantFiles(precision="fp16", content=together),
    ]
    bundle = build_bundle(tmp_path / "both.mvbundle", kinds)
    slim = slim_bundle(bundle.path, tmp_path / "one.mvbundle", precision="fp16")
    for name, part in slim.manifest.components.items():
        (variant,) = part.variants
        assert (slim.model(variant).parent / "onnx-fp32.onnx").is_file(), name


def test_sets_that_are_not_complete_go(tmp_path: Path) -> None:
    both = [VariantFiles(), VariantFiles(precision="fp16")]
    bundle = build_bundle(
        tmp_path / "odd.mvbundle", both, components={"vae_decoder": [VariantFiles()]}
    )
    slim = slim_bundle(bundle.path, tmp_path / "even.mvbundle", target="onnx")
    for part in slim.manifest.components.values():
        assert [variant.precision for variant in part.variants] == ["fp32"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({}, "nothing is chosen of many.mvbundle; give a target, chip, precision, format or pro"),
        ({"chip": "sm8550"}, "no variant with chip=sm8550 in many.mvbundle; it holds onnx/fp32, "),
        ({"chip": "iphone 15"}, "an iPhone has no Snapdragon"),
        ({"target": "qnm"}, "no variant with target=qnm"),
    ],
    ids=str,
)
def test_a_choice_of_nothing_is_refused_and_leaves_nothing(
    many: Bundle, tmp_path: Path, chosen: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        slim_bundle(many.path, tmp_path / "phone.mvbundle", **chosen)
    assert not (tmp_path / "phone.mvbundle").exists()


def test_a_damaged_file_is_found_and_nothing_is_left(many: Bundle, tmp_path: Path) -> None:
    model = next(many.path.glob("components/unet/onnx-fp32/model.onnx"))
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(BundleError, match="has the hash"):
        slim_bundle(many.path, tmp_path / "phone.mvbundle", target="onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    # What goes needs no check: the damage is not in it.
    slim_bundle(many.path, tmp_path / "phone.mvbundle", target="iphone")


def test_places_that_are_taken_or_inside_are_refused(many: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists; add --overwrite"):
        slim_bundle(many.path, many.path, target="onnx")
    with pytest.raises(InputError, match="which lies in the bundle itself"):
        slim_bundle(many.path, many.path / "phone.mvbundle", target="onnx")
    before = _files(many.path)
    assert not any(name.startswith("phone") for name in before)
    slim_bundle(many.path, many.path, target="onnx", overwrite=True)
    assert len(_files(many.path)) < len(before)


# --- the command ---------------------------------------------------------------------------------


def test_slim_prints_sizes_before_and_after(capsys: CapSys, many: Bundle, workplace: Path) -> None:
    argv = ["slim", str(many.path), "--target", "iphone", "--out", "phone.mvbundle"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("phone.mvbundle: ")
    assert captured.out.endswith(" KiB, holds iphone/coreml/w8\n")
    assert main([*argv, "--overwrite", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["variants"] == ["iphone/coreml/w8"]
    assert 0 < result["bytes"] < result["bytes_before"]
    assert "exists; add --overwrite" in refusal(capsys, *argv)


def test_slim_takes_a_phone_and_says_what_else_it_may_be(
    capsys: CapSys, many: Bundle, workplace: Path
) -> None:
    assert main(["slim", str(many.path), "--chip", "s24", "--out", "phone.mvbundle"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("note: Samsung Galaxy S24 has the Snapdragon 8 Gen 3 in some ")
    assert "holds snapdragon/fp16/sm8650, snapdragon/w8a16/sm8650" in captured.out
    assert "required: --out" in refusal(capsys, "slim", str(many.path), "--chip", "s24")
    assert "nothing is chosen" in refusal(capsys, "slim", str(many.path), "--out", "x.mvbundle")
