"""What a variant may be: targets, formats, delegates, systems, chips, packages and pixels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from manifests import (
    SCHEMA,
    document,
    encode,
    refused,
    tensors_named,
    variant_of,
    variants_of,
)

from mvsdk.manifest import COMPUTE_UNITS, PRECISIONS, Manifest

ONNX, SNAPDRAGON = "onnx-fp32", "snapdragon-sm8650-w8a16"
COREML, COREAI = "iphone-coreml-w8", "iphone-coreai-fp16"
XNNPACK, COREML_DELEGATE = "executorch-xnnpack-w8a8", "executorch-coreml-fp16"
QNN_DELEGATE = "executorch-qnn-sm8650-w8a16"
KINDS = {
    ONNX: "onnx/fp32",
    SNAPDRAGON: "snapdragon/w8a16/sm8650",
    COREML: "iphone/coreml/w8",
    COREAI: "iphone/coreai/fp16",
    XNNPACK: "executorch/xnnpack/w8a8",
    COREML_DELEGATE: "executorch/coreml/fp16",
    QNN_DELEGATE: "executorch/qnn/w8a16/sm8650",
}
"""Ids of the golden variants -> what they are chosen by."""
CHIP = {"slug": "sm8650", "htp_arch": 75, "soc_model": 57}
FOLDER = f"components/unet/{COREML}"
WEIGHTS = {"path": "w.ptd", "bytes": 1, "sha256": "0" * 64}


class Wrong(NamedTuple):
    """A change that makes a variant wrong."""

    id: str
    change: Mapping[str, Any]
    words: str
    schema: bool = True
    """Whether the schema can say so."""


WRONG = {
    "unknown target": Wrong(
        ONNX,
        {"target": "android"},
        "target is 'android', want one of onnx, snapdragon, iphone, executorch",
    ),
    "format of another target": Wrong(
        ONNX, {"format": "coreml"}, "format is 'coreml', want one of onnx;"
    ),
    "format of a computer": Wrong(
        COREML, {"format": "onnx"}, "format is 'onnx', want one of coreml, coreai;"
    ),
    "program without a delegate": Wrong(
        XNNPACK, {"delegate": None}, "has no delegate, want one of xnnpack, coreml, qnn;"
    ),
    "unknown delegate": Wrong(
        XNNPACK, {"delegate": "mps"}, "delegate is 'mps', want one of xnnpack, coreml, qnn;"
    ),
    "delegate of a graph": Wrong(
        ONNX, {"delegate": "xnnpack"}, "has the delegate xnnpack, want null for the format onnx;"
    ),
    "delegate of a package": Wrong(
        COREML, {"delegate": "coreml"}, "the delegate coreml, want null for the format coreml;"
    ),
    "iphone of no system": Wrong(
        COREAI, {"deployment_target": None}, "has no deployment_target, want a system such as iOS18"
    ),
    "system of a computer": Wrong(
        ONNX, {"deployment_target": "iOS18"}, "target iOS18, want null for the format onnx"
    ),
    "system of another delegate": Wrong(
        XNNPACK, {"deployment_target": "iOS18"}, "target iOS18, want null for the delegate xnnpack"
    ),
    "function of a graph": Wrong(
        SNAPDRAGON, {"function": "main"}, "function main, want null for the format qnn_context"
    ),
    "function of a program": Wrong(
        COREML_DELEGATE, {"function": "main"}, "function main, want null for the delegate coreml"
    ),
    "function of no name": Wrong(COREML, {"function": "a b"}, "function is 'a b', want a name"),
    "unknown precision": Wrong(ONNX, {"precision": "w2"}, "precision is 'w2', want one of fp32"),
    "snapdragon without a chip": Wrong(
        SNAPDRAGON, {"chip": None}, "has no chip, want the one that it is compiled for"
    ),
    "qnn without a chip": Wrong(
        QNN_DELEGATE, {"chip": None}, "has no chip, want the one that it is compiled for"
    ),
    "onnx with a chip": Wrong(
        ONNX, {"chip": CHIP}, "has the chip sm8650, want null for the format onnx"
    ),
    "iphone with a chip": Wrong(
        COREML, {"chip": CHIP}, "has the chip sm8650, want null for the format coreml"
    ),
    "xnnpack with a chip": Wrong(
        XNNPACK, {"chip": CHIP}, "has the chip sm8650, want null for the delegate xnnpack"
    ),
    "model not among files": Wrong(
        ONNX,
        {"model": "components/other.onnx"},
        "has the model components/other.onnx, which is not among its files",
        schema=False,
    ),
    "program not among files": Wrong(
        XNNPACK, {"model": "a.pte"}, "model a.pte, which is not among its files", schema=False
    ),
    "package without files": Wrong(
        COREML,
        {"model": f"{FOLDER}/Other.mlpackage"},
        "Other.mlpackage, in which none of its files is",
        schema=False,
    ),
    "package that only begins alike": Wrong(
        COREML,
        {"model": f"{FOLDER}/Unet.ml"},
        "Unet.ml, in which none of its files is",
        schema=False,
    ),
    "package that is a file": Wrong(
        COREML,
        {"model": f"{FOLDER}/Unet.mlpackage/Manifest.json"},
        "Manifest.json, in which none of its files is",
        schema=False,
    ),
    "weights in two files": Wrong(
        COREML_DELEGATE,
        {
            "model": "a.pte",
            "files": [{**WEIGHTS, "path": path} for path in ("a.pte", "a.ptd", "b.ptd")],
        },
        "has 2 files .ptd, want at most one",
    ),
    "basis of none": Wrong(
        COREML,
        {"residency": {"npu_nodes": 1, "cpu_nodes": 0, "left_outside": [], "basis": "guess"}},
        "basis is 'guess', want one of compiler, rules",
    ),
}


def _broken(case: Wrong) -> dict[str, Any]:
    doc = document()
    variant_of(doc, case.id).update(copy.deepcopy(dict(case.change)))
    return doc


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    assert WRONG[case].words in refused(_broken(WRONG[case]))


@pytest.mark.parametrize("case", [name for name, case in WRONG.items() if case.schema])
def test_schema_refuses_what_does_not_go_together(case: str) -> None:
    assert not SCHEMA.is_valid(_broken(WRONG[case]))


@pytest.mark.parametrize(
    "system",
    ["18", "iOS", "iOS0", "iOS018", "ios18", "iOS18.1", "iOS 18", "macOS15", "iOS1000", "", 18],
)
def test_a_system_has_one_spelling(system: object) -> None:
    doc = _broken(Wrong(COREML, {"deployment_target": system}, ""))
    assert "variants[2].deployment_target is" in refused(doc)
    assert not SCHEMA.is_valid(doc)


RIGHT: dict[str, tuple[str, Mapping[str, Any]]] = {
    "later system": (COREML, {"deployment_target": "iOS26"}),
    "system of three digits": (COREML, {"deployment_target": "iOS100"}),
    "function of a package": (COREML, {"function": "size_64x64.8"}),
    "only function of an asset": (COREAI, {"function": None}),
    "any system with Core ML": (COREML_DELEGATE, {"deployment_target": None}),
    "no residency": (COREML, {"residency": None}),
    "rules of a program": (
        XNNPACK,
        {"residency": {"npu_nodes": 9, "cpu_nodes": 0, "left_outside": [], "basis": "rules"}},
    ),
    **{f"precision {word}": (COREML, {"precision": word}) for word in PRECISIONS},
    **{f"on {word}": (COREML, {"compute_unit": word}) for word in COMPUTE_UNITS},
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_goes_together_is_read_and_written(case: str) -> None:
    id_, change = RIGHT[case]
    doc = _broken(Wrong(id_, change, ""))
    SCHEMA.validate(doc)
    manifest = Manifest.from_json(encode(doc))
    assert Manifest.from_json(manifest.to_json()) == manifest
    (variant,) = (x for x in manifest.components["unet"].variants if x.id == id_)
    for name, value in change.items():
        if name != "residency":
            assert getattr(variant, name) == value


def test_golden_variants_are_of_every_kind() -> None:
    variants = Manifest.from_json(encode(document())).components["unet"].variants
    assert {variant.id: str(variant.kind) for variant in variants} == KINDS


@pytest.mark.parametrize("id_", KINDS)
def test_two_variants_that_nothing_could_choose_between_are_refused(id_: str) -> None:
    doc = document()
    variants_of(doc).append({**variant_of(doc, id_), "id": "twin"})
    message = refused(doc)
    assert f"variant twin is the second of {KINDS[id_]}, want one of each kind" in message


@pytest.mark.parametrize(("key", "value"), [("function", "other"), ("deployment_target", "iOS30")])
def test_neither_function_nor_system_is_chosen_by(key: str, value: str) -> None:
    doc = document()
    variants_of(doc).append({**variant_of(doc, COREAI), "id": "twin", key: value})
    assert "variant twin is the second of iphone/coreai/fp16" in refused(doc)


def test_a_package_may_have_files_beside_it() -> None:
    doc = document()
    file = {"path": f"{FOLDER}/extra/notes.txt", "bytes": 1, "sha256": "0" * 64}
    variant_of(doc, COREML)["files"].append(file)
    SCHEMA.validate(doc)
    assert file["path"] in [ref.path for ref in Manifest.from_json(encode(doc)).files()]


@pytest.mark.parametrize(("count", "is_right"), [(4096, True), (4097, False)])
def test_operators_left_outside_are_bounded(count: int, is_right: bool) -> None:
    doc = document()
    outside = {"operator": "gather", "name": "", "reason": "x"}
    variant_of(doc, COREML)["residency"].update(cpu_nodes=count, left_outside=[outside] * count)
    assert SCHEMA.is_valid(doc) is is_right
    if is_right:
        residency = Manifest.from_json(encode(doc)).components["unet"].variants[2].residency
        assert residency is not None
        assert residency.cpu_nodes == len(residency.left_outside) == count
        assert residency.basis == "rules"
    else:
        assert "left_outside is a list of 4097, want 0 to 4096 items" in refused(doc)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int32"])
def test_frames_may_be_bytes_or_whole_numbers_of_other_types(dtype: str) -> None:
    doc = document()
    for tensor in tensors_named(doc, "frames"):
        tensor["dtype"] = dtype
    SCHEMA.validate(doc)
    Manifest.from_json(encode(doc))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "int64"}, "int64"),
        ({"dtype": "uint16"}, "uint16"),
        ({"dtype": "int8"}, "int8"),
        ({"dtype": "int32", "scale": 1, "zero_point": 0}, "int32 with a scale"),
    ],
)
def test_frames_of_other_types_are_refused(change: dict[str, Any], said: str) -> None:
    doc = document()
    variant_of(doc, XNNPACK, "vae_decoder")["outputs"][0].update(change)
    want = f"vae_decoder/frames of {XNNPACK} is {said}, want uint8, float16, float32, int32"
    assert want in refused(doc)


def test_bytes_of_frames_may_be_scaled() -> None:
    doc = document()
    variant_of(doc, SNAPDRAGON, "vae_decoder")["outputs"][0].update(scale=1.0, zero_point=0)
    Manifest.from_json(encode(doc))
