"""Documents of versions 1 and 2 are read as section 10 of the format says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from manifests import Document, document, encode, golden, refused

from mvsdk.manifest import (
    Component,
    DrawNoise,
    InputValue,
    Loop,
    Manifest,
    NumberInput,
    Numbers,
    PictureInput,
    PromptInput,
    Run,
    Sample,
    Tokenize,
)

KINDS = ("text_to_video", "image_to_video")
OLD = [f"version_{version}_{kind}" for version in (1, 2) for kind in KINDS]


def _read(doc: Document) -> Manifest:
    return Manifest.from_json(encode(doc))

    return Manifest.from_json(encode(doc))


@pytest.mark.parametrize("name", OLD)
def test_older_manifests_are_written_as_version_3(name: str) -> None:
    written = Manifest.from_json(golden(name)).to_json()
    assert written == golden(name.replace("version", "upgraded"))


@pytest.mark.parametrize("kind", KINDS)
def test_version_1_is_version_2_with_fewer_variants(kind: str) -> None:
    first, second = (Manifest.from_json(golden(f"version_{n}_{kind}")) for n in (1, 2))
    older = {
        name: Component.of(part.role, part.variants[:2]) for name, part in second.components.items()
    }
    assert first == replace(second, components=older, sets=second.sets[:2])
    for part in first.components.values():
        assert [variant.format for variant in part.variants] == ["onnx", "qnn_context"]
        assert {
            variant.delegation.basis for variant in part.variants[1:] if variant.delegation
        } <= {"compiler"}


def test_a_prompt_becomes_a_clip() -> None:
    manifest = Manifest.from_json(golden("version_2_text_to_video"))
    program = manifest.program
    assert program.inputs == {"prompt": PromptInput()}
    kinds = [type(operation) for operation in program.operations]
    assert kinds == [Tokenize, Run, DrawNoise, Sample, Run]
    noise, sample = program.operations[2:4]
    assert isinstance(noise, DrawNoise)
    assert isinstance(sample, Sample)
    assert (noise.stream, sample.stream, sample.shared_axis) == (0, 0, None)
    assert noise.shape == (8, 16, 8, 8)
    roles = {name: part.role for name, part in manifest.components.items()}
    assert roles == {name: name for name in roles} | {"unet": "denoiser"}
    types = {
        tensor.name: tensor.type
        for part in manifest.components.values()
        for tensor in (*part.inputs, *part.outputs)
    }
    assert {name for name, kind in types.items() if kind != "real"} == {"input_ids", "frames"}
    assert (types["input_ids"], types["frames"]) == ("integer", "pixels")


def test_a_picture_becomes_a_clip() -> None:
    program = Manifest.from_json(golden("version_1_image_to_video")).program
    assert program.inputs["picture"] == PictureInput(height=256, width=512)
    defaults = {
        name: given.default
        for name, given in program.inputs.items()
        if isinstance(given, NumberInput)
    }
    assert defaults == {"fps": 7.0, "motion": 127.0, "noise_aug_strength": 0.02}
    noises = [item for item in program.walk() if isinstance(item, DrawNoise)]
    assert [(noise.stream, noise.shape) for noise in noises] == [
        (65536, (1, 3, 256, 512)),
        (0, (14, 4, 32, 64)),
    ]
    ids = next(x for x in program.walk() if isinstance(x, Numbers) and x.output == "added_time_ids")
    assert ids.values == (
        InputValue(input="fps", offset=-1.0),
        InputValue(input="motion"),
        InputValue(input="noise_aug_strength"),
    )


@pytest.mark.parametrize("at_once", [1, 2, 4, 8])
def test_a_decoder_of_fewer_frames_runs_in_a_loop(at_once: int) -> None:
    doc = document("version_1_text_to_video")
    for variant in doc["components"]["vae_decoder"]["variants"]:
        variant["inputs"][0]["shape"][0] = variant["outputs"][0]["shape"][0] = at_once
    last = _read(doc).program.operations[-1]
    assert isinstance(last, Run if at_once == 8 else Loop)
    assert not isinstance(last, Loop) or last.count == 8 // at_once


def test_constants_are_numbers_in_the_order_of_their_names() -> None:
    doc = document("version_2_text_to_video")
    values = {"Motion": [1.5, 2.5], "added_time_ids": [3], "zoom:0": [4]}
    doc["sampler"]["conditioning"] = values
    for variant in doc["components"]["unet"]["variants"]:
        variant["inputs"] += [
            {"name": name, "shape": [len(x)], "dtype": "float32", "scale": None, "zero_point": None}
            for name, x in values.items()
        ]
    program = _read(doc).program
    made = {x.output: list(x.values) for x in program.walk() if isinstance(x, Numbers)}
    assert made == {"constant_1": [1.5, 2.5], "constant_2": [3.0], "constant_3": [4.0]}
    run = next(x for x in program.walk() if isinstance(x, Run) and x.component == "unet")
    assert run.inputs["zoom:0"] == "constant_3"


def _drop_variant(doc: Document) -> None:
    del doc["components"]["vae_decoder"]["variants"][0]


def _rename_variants(doc: Document) -> None:
    for variant in doc["components"]["text_encoder"]["variants"]:
        variant["id"] += ".text"


def _turn_round(doc: Document) -> None:
    doc["components"]["text_encoder"]["variants"].reverse()
    doc["components"] = dict(reversed(doc["components"].items()))


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        (lambda doc: None, ["onnx-fp32", "snapdragon-sm8650-w8a16"]),
        (_drop_variant, ["snapdragon-sm8650-w8a16"]),
        (_rename_variants, ["onnx-fp32.text", "snapdragon-sm8650-w8a16.text"]),
        (_turn_round, ["snapdragon-sm8650-w8a16", "onnx-fp32"]),
    ],
)
def test_sets_are_the_variants_that_go_together(
    change: Callable[[Document], None], ids: list[str]
) -> None:
    doc = document("version_1_text_to_video")
    doc["verification"] = []
    change(doc)
    assert [item.id for item in _read(doc).sets] == ids


def test_a_clip_was_verified_with_a_set() -> None:
    doc = document("version_1_text_to_video")
    doc["components"]["text_encoder"]["variants"][0]["id"] = "words"
    records = {record.component: record.variant for record in _read(doc).verification}
    assert records == {"unet": "snapdragon-sm8650-w8a16", "end_to_end": "words"}
    _drop_variant(doc)
    assert [record.component for record in _read(doc).verification] == ["unet"]


def test_components_that_nothing_runs_are_dropped_with_what_is_said_of_them() -> None:
    doc = document("version_2_text_to_video")
    whole = _read(doc)
    doc["components"]["safety_checker"] = {"variants": [None]}
    doc["costs"]["safety_checker"] = None
    doc["verification"].append({"component": "safety_checker"})
    assert _read(doc) == whole
    doc["verification"].append({"component": "other"})
    assert refused(doc).rule == "D9"


def test_a_real_without_scale_gets_one_where_it_is_an_integer() -> None:
    doc = document("version_1_text_to_video")
    doc["components"]["unet"]["variants"][0]["inputs"][1]["dtype"] = "uint8"
    timestep = _read(doc).components["unet"].variants[0].inputs[1]
    assert (timestep.dtype, timestep.scale, timestep.zero_point) == ("uint8", 1.0, 0)


def test_a_text_that_is_too_long_is_refused_as_it_was() -> None:
    manifest = Manifest.from_json(golden("version_2_text_to_video"))
    assert manifest.tokenizers["main"].too_long == "refuse"
    assert manifest.samplers["main"].adjustable
    assert (manifest.tables, manifest.packs) == ({}, ())
