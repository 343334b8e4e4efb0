"""Manifests of version 1 are read by the rules of version 1, into what version 2 has for them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from manifests import ROOT, SCHEMA, Document, encode, refused, tensors_named, variants_of

from mvsdk.manifest import Component, Manifest

FIRST = {
    name: (ROOT / f"tests/golden/{name}.json").read_bytes()
    for name in ("manifest", "manifest_image_to_video")
}
SECOND = {
    "manifest": "manifest_v2",
    "manifest_image_to_video": "manifest_v2_image_to_video",
}


def _document() -> Document:
    return json.loads(FIRST["manifest"])


@pytest.mark.parametrize("name", FIRST)
def test_golden_manifests_are_read_into_what_version_2_has_for_them(name: str) -> None:
    SCHEMA.validate(json.loads(FIRST[name]))
    first = Manifest.from_json(FIRST[name])
    second = Manifest.from_json((ROOT / f"tests/golden/{SECOND[name]}.json").read_bytes())
    older = {part: Component(variants=x.variants[:2]) for part, x in second.components.items()}
    assert first == replace(second, components=older)
    for component in first.components.values():
        for variant, format_ in zip(component.variants, ("onnx", "qnn_context"), strict=True):
            assert variant.format == format_
            assert (variant.delegate, variant.deployment_target, variant.function) == (None,) * 3
            assert variant.residency is None or variant.residency.basis == "compiler"


@pytest.mark.parametrize("name", FIRST)
def test_they_are_written_as_version_2(name: str) -> None:
    manifest = Manifest.from_json(FIRST[name])
    payload = manifest.to_json()
    assert json.loads(payload)["format_version"] == 2
    SCHEMA.validate(json.loads(payload))
    assert Manifest.from_json(payload) == manifest
    assert Manifest.from_json(payload).to_json() == payload


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "onnx"), ("delegate", None), ("deployment_target", None), ("function", None)],
)
def test_keys_of_version_2_are_unknown_in_version_1(key: str, value: object) -> None:
    doc = _document()
    variants_of(doc)[0][key] = value
    assert f"components.unet.variants[0] key '{key}' is unknown" in refused(doc)
    assert not SCHEMA.is_valid(doc)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("target", "iphone", "target is 'iphone', want one of onnx, snapdragon;"),
        ("target", "executorch", "target is 'executorch', want one of onnx, snapdragon;"),
        *(
            ("precision", word, f"precision is '{word}', want one of fp32, fp16, w8a16;")
            for word in ("w8a8", "w8", "w6", "w4")
        ),
        ("compute_unit", "ALL", "compute_unit is 'ALL', want one of CPU, GPU, NPU;"),
        ("chip", None, "has no chip, want the one that it is compiled for"),
    ],
)
def test_words_of_version_2_are_refused_in_version_1(key: str, value: Any, words: str) -> None:
    doc = _document()
    variants_of(doc)[1][key] = value
    assert words in refused(doc)
    assert not SCHEMA.is_valid(doc)


def test_residency_has_no_basis() -> None:
    doc = _document()
    variants_of(doc)[1]["residency"]["basis"] = "compiler"
    assert "residency key 'basis' is unknown" in refused(doc)
    assert not SCHEMA.is_valid(doc)


@pytest.mark.parametrize("key", variants_of(_document())[1])
def test_every_key_of_a_variant_is_required(key: str) -> None:
    doc = _document()
    del variants_of(doc)[1][key]
    assert f"components.unet.variants[1].{key} is missing" in refused(doc)
    assert not SCHEMA.is_valid(doc)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_pixels_are_bytes(dtype: str) -> None:
    doc = _document()
    tensors_named(doc, "frames")[0]["dtype"] = dtype
    assert f"vae_decoder/frames of onnx-fp32 is {dtype}, want uint8;" in refused(doc)
    pictures = json.loads(FIRST["manifest_image_to_video"])
    tensors_named(pictures, "image", "vae_encoder")[1]["dtype"] = dtype
    assert f"vae_encoder/image of snapdragon-sm8750-w8a16 is {dtype}, want" in refused(pictures)


def test_two_variants_of_one_target_precision_and_chip_are_refused() -> None:
    doc = _document()
    variants_of(doc).append({**variants_of(doc)[1], "id": "twin"})
    assert "variant twin is the second of snapdragon/w8a16/sm8650" in refused(doc)


def test_a_version_is_not_taken_for_the_other() -> None:
    doc = _document()
    assert "variants[0].format is missing" in refused({**doc, "format_version": 2})
    second = json.loads((ROOT / "tests/golden/manifest_v2.json").read_bytes())
    assert "key 'format' is unknown" in refused({**second, "format_version": 1})


def test_a_version_is_a_whole_number() -> None:
    for version in (1.0, "1", True, None, 0):
        assert "format_version is" in refused(encode({**_document(), "format_version": version}))
