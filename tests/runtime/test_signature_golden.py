"""A graph's inputs and outputs against tests/golden/signature.json, and in a second writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mvsdk.backends._graph import GraphSession, decode, encode
from mvsdk.errors import BackendError, InputError
from mvsdk.manifest import DTYPES, TensorSpec

GOLDEN = json.loads(
    (Path(__file__).resolve().parents[1] / "golden/signature.json").read_text(encoding="utf-8")
)


def values_of(words: list[str], dtype: str) -> NDArray[Any]:
    size = np.dtype(dtype).itemsize
    return np.array([int(word, 16) for word in words], f"u{size}").view(dtype)


def words_of(values: NDArray[Any]) -> list[str]:
    size = values.dtype.itemsize
    return [f"{word:0{2 * size}x}" for word in values.view(f"u{size}").tolist()]


def spec_of(case: dict[str, Any], name: str = "x") -> TensorSpec:
    stored = case.get("stored") or case["values"]
    scale = case.get("scale")
    return TensorSpec(
        name=name,
        shape=(len(stored),),
        dtype=case["dtype"],
        scale=None if scale is None else float(values_of([scale], "float32")[0]),
        zero_point=case.get("zero_point"),
        type=case.get("type", "pixels"),
    )


def case_id(case: dict[str, Any]) -> str:
    return f"{case['type']}-{case['dtype']}-{case.get('scale')}-{case.get('zero_point')}"


@pytest.mark.parametrize("case", GOLDEN["encode"], ids=case_id)
def test_inputs_are_encoded(case: dict[str, Any]) -> None:
    stored = encode(spec_of(case), values_of(case["values"], case["from"]))
    assert stored.dtype == case["dtype"]
    assert words_of(stored) == case["stored"]


@pytest.mark.parametrize("case", GOLDEN["decode"], ids=case_id)
def test_outputs_are_decoded(case: dict[str, Any]) -> None:
    values = decode(spec_of(case), values_of(case["stored"], case["dtype"]))
    assert values.dtype == case["to"]
    assert words_of(values) == case["values"]


@pytest.mark.parametrize("case", GOLDEN["encode_refused"], ids=case_id)
def test_inputs_without_an_encoding_are_refused_by_their_rule(case: dict[str, Any]) -> None:
    session = GraphSession("unet", [spec_of(case)], [], lambda feeds: [])
    with pytest.raises(InputError, match=rf"^unet/x is .*; allowed.*\[{case['rule']}\]$"):
        session.run({"x": values_of(case["values"], "float32")})


@pytest.mark.parametrize("case", GOLDEN["frames"], ids=lambda case: case["dtype"])
def test_frames_become_bytes(case: dict[str, Any]) -> None:
    stored = values_of(case["stored"], case["dtype"])
    session = GraphSession("vae_decoder", [], [spec_of(case, "frames")], lambda feeds: [stored])
    assert words_of(session.run({})["frames"]) == case["bytes"]


@pytest.mark.parametrize("case", GOLDEN["frames_refused"], ids=lambda case: case["stored"][0])
def test_frames_that_are_not_finite_are_refused_by_their_rule(case: dict[str, Any]) -> None:
    stored = values_of(case["stored"], case["dtype"])
    session = GraphSession("vae_decoder", [], [spec_of(case, "frames")], lambda feeds: [stored])
    with pytest.raises(BackendError, match=rf"\[{case['rule']}\]$"):
        session.run({})


@pytest.mark.parametrize("section", ["encode", "decode"])
def test_golden_values_cover_every_type(section: str) -> None:
    assert {case["dtype"] for case in GOLDEN[section]} == set(DTYPES)


def test_golden_values_cover_all_that_each_type_is_stored_as() -> None:
    plain = {(case["type"], case["dtype"]) for case in GOLDEN["encode"] if case["scale"] is None}
    assert plain == {
        *(("real", dtype) for dtype in ("float32", "float16", "int64")),
        *(("integer", dtype) for dtype in ("int32", "int64")),
        *(("pixels", dtype) for dtype in ("uint8", "float16", "float32", "int32")),
    }
    assert {case["dtype"] for case in GOLDEN["frames"]} == {"uint8", "float16", "float32", "int32"}


def _integers(kind: Any, dtype: Any, given: NDArray[Any]) -> NDArray[Any]:
    spec = TensorSpec(name="x", shape=given.shape, dtype=dtype, type=kind)
    stored = encode(spec, given, label="unet")
    assert stored.dtype == dtype
    return stored


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("int32", np.int64([0, 2**40 + 5])),
        ("int32", np.int64([-(2**31) - 1])),
        ("int32", np.uint32([2**31])),
        ("int32", np.float32([2.0**31])),
        ("int32", np.float64([1.0, 1.7])),
        ("int32", np.float16([np.nan])),
        ("int32", np.float32([-np.inf])),
        ("int64", np.uint64([2**63])),
        ("int64", np.float64([2.0**63])),
        ("int64", np.float32([0.5])),
    ],
    ids=str,
)
def test_integers_that_do_not_fit_are_refused(dtype: str, given: NDArray[Any]) -> None:
    with pytest.raises(
        InputError, match=r"^unet/x is \S+ somewhere; allowed for integer: .*\[G16\]$"
    ):
        _integers("integer", dtype, given)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32"])
@pytest.mark.parametrize(
    "given",
    [
        np.int32([300, -1]),
        np.int8([-1]),
        np.float32([255.5]),
        np.float32([127.25]),
        np.float64([np.nan]),
        np.float16([np.inf]),
        np.uint16([256]),
    ],
    ids=str,
)
def test_pixels_that_are_no_bytes_are_refused(dtype: str, given: NDArray[Any]) -> None:
    with pytest.raises(
        InputError, match=r"^unet/x is \S+ somewhere; allowed for pixels: .*\[G17\]$"
    ):
        _integers("pixels", dtype, given)


def test_whole_numbers_that_fit_are_taken_in_any_type() -> None:
    for kind in (np.int16, np.int64, np.uint64, np.float16, np.float64):
        assert _integers("integer", "int32", kind([0, 1, 77])).tolist() == [0, 1, 77]
        assert _integers("pixels", "uint8", kind([0, 1, 77])).tolist() == [0, 1, 77]
    assert _integers("integer", "int64", np.bool_([True])).tolist() == [1]
    assert _integers("pixels", "float16", np.bool_([True])).tolist() == [1]
    ends = [-(2**31), 2**31 - 1]
    assert _integers("integer", "int32", np.int64(ends)).tolist() == ends
    assert _integers("integer", "int64", np.float64([-(2.0**63)])).tolist() == [-(2**63)]
    assert _integers("pixels", "uint8", np.zeros((0, 3))).shape == (0, 3)


def test_half_precision_keeps_nan() -> None:
    spec = TensorSpec(name="x", shape=(1,), dtype="float16")
    assert np.isnan(encode(spec, np.float32([np.nan]))).all()


@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_doubles_are_rounded_to_float32_first(dtype: Any) -> None:
    quantization = {"scale": 1.0, "zero_point": 0} if dtype == "uint16" else {}
    spec = TensorSpec(name="x", shape=(2,), dtype=dtype, **quantization)
    doubles = np.array([0.5 + 2.0**-40, 1.0 + 2.0**-11 + 2.0**-40])
    assert encode(spec, doubles).tolist() == encode(spec, doubles.astype(np.float32)).tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("scale", [0.5, 0.0005255461670458317, 3.1e-30])
def test_types_up_to_16_bits_are_decoded_in_float32_alone(dtype: Any, scale: float) -> None:
    """Every stored value, in the form that has no float64 in it."""
    ends = np.iinfo(dtype)
    stored = np.arange(ends.min, ends.max + 1, dtype=np.int64).astype(dtype)
    for zero_point in (ends.min, 0, 3, ends.max):
        spec = TensorSpec(
            name="x", shape=stored.shape, dtype=dtype, scale=scale, zero_point=zero_point
        )
        expected = (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
        np.testing.assert_array_equal(decode(spec, stored), expected, strict=True)


def test_int32_differences_are_exact_before_they_are_rounded() -> None:
    spec = TensorSpec(name="x", shape=(1,), dtype="int32", scale=1.0, zero_point=1)
    assert decode(spec, np.int32([2**24 + 1])).tolist() == [2**24]
