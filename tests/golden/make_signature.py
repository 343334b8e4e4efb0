"""Values of a graph's inputs and outputs: what `encode` stores and what `decode` gives.

Every value is the hexadecimal bits of its type, most significant digit first, so that no language's
way of reading numbers decides anything; a zero point is a JSON integer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsdk.backends._graph import GraphSession, decode, encode
from mvsdk.manifest import TensorSpec, ValueType

Case = dict[str, Any]

QUANTIZED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("uint8", (0, 10, 255)),
    ("int8", (-128, 0, 127)),
    ("uint16", (0, 34670, 65535)),
    ("int16", (-32768, 0, 32767)),
    ("int32", (-(2**31), -1, 0, 1, 2**31 - 1)),
)
"""Types with a scale, and zero points to try."""
SCALES = (0.5, 1.0, 0.0005255461670458317, 3.1e-30)
STEPS = (0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 126.5, 127.5, 254.5, 255.5)
"""Values in steps of the scale; with 0.5 and 1 the quotients are these exactly."""
FAR_STEPS = (32767.5, 65534.5, 65535.5, 2147483520.0, 2147483648.0, -2147483648.0, -3e9)
ABSOLUTE = (1e38, -1e38, np.inf, -np.inf, 1e-45, -1e-45, 1.17549435e-38)

HALF_ULP = 2.0**-11
HALVES = (
    *(0.0, -0.0, 1 / 3, 1 + HALF_ULP, 1 + 3 * HALF_ULP, 1 + 1.0001 * HALF_ULP, -(1 + HALF_ULP)),
    *(65504.0, 65519.996, -65519.996, 2.0**-14, 2.0**-14 - 2.0**-25, 2.0**-24, 3 * 2.0**-25),
    *(2.0**-25, 1.0001 * 2.0**-25, 1e-8, -1e-8, 1e-45),
)
"""Float32 on both sides of a rounding to float16, subnormals and the largest among them."""
BEYOND_HALVES = (65520.0, -65520.0, 70000.0, np.inf, -np.inf)
HALF_BITS = (0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3555, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00)
SINGLES = (0.0, -0.0, 1e-45, 3.4028235e38, np.inf, -np.inf, 0.1)
WHOLE = (0.5, 1.5, -2.5, 999.0, 2.0**40, 2.0**63, 1e38, -1e38, np.inf, -np.inf)
"""Real values for whole numbers without a scale, which are stored as with scale 1."""
INTEGERS = np.int32([-(2**31), -1, 0, 49407, 2**31 - 1])
BYTES = np.uint8([0, 1, 127, 254, 255])
PIXEL_TYPES = ("uint8", "float16", "float32", "int32")
PIXELS = (-np.float32(1e9), -0.5, 0.5, 1.5, 127.49999, 254.5, 255.5, 1e9)


def build_signature() -> dict[str, list[Case]]:
    """Encode, decode, and make the bytes of frames."""
    return {
        "encode": [*_encode_quantized(), *_encode_others()],
        "encode_refused": _encode_refused(),
        "decode": [*_decode_quantized(), *_decode_others()],
        "frames": [_frames(dtype, values) for dtype, values in _frame_values()],
        "frames_refused": [
            {"dtype": "float32", "stored": bits(np.float32([value])), "rule": "G17"}
            for value in (np.nan, np.inf, -np.inf)
        ],
    }


def bits(values: NDArray[Any]) -> list[str]:
    """Write values as the hexadecimal bits of their type."""
    size = values.dtype.itemsize
    return [f"{value:0{2 * size}x}" for value in values.ravel().view(f"u{size}").tolist()]


def _encode_quantized() -> list[Case]:
    return [
        _encode(_spec(dtype, scale, zero_point), _values_for(scale))
        for dtype, zero_points in QUANTIZED
        for scale in SCALES
        for zero_point in zero_points
    ]


def _values_for(scale: float) -> NDArray[np.float32]:
    steps = np.float32((*STEPS, *FAR_STEPS)) * np.float32(scale)
    return np.append(steps, np.float32(ABSOLUTE))


def _encode_others() -> list[Case]:
    return [
        _encode(_spec("float16"), np.float32(HALVES)),
        _encode(_spec("float32"), np.float32(SINGLES)),
        _encode(_spec("int64"), np.float32(WHOLE)),
        *(_encode(_spec(dtype, type="integer"), INTEGERS) for dtype in ("int32", "int64")),
        *(_encode(_spec(dtype, type="pixels"), BYTES) for dtype in PIXEL_TYPES),
    ]


def _encode(spec: TensorSpec, values: NDArray[Any]) -> Case:
    return {
        **_head(spec),
        "from": str(values.dtype),
        "values": bits(values),
        "stored": bits(encode(spec, values)),
    }


def _encode_refused() -> list[Case]:
    nans = [
        {**_head(_spec(dtype, 0.5, 0)), "values": ["7fc00000"], "rule": "G13"}
        for dtype, _ in QUANTIZED
    ]
    halves = [
        {**_head(_spec("float16")), "values": bits(np.float32([value])), "rule": "G15"}
        for value in BEYOND_HALVES
    ]
    unscaled = {**_head(_spec("int64")), "values": ["7fc00000"], "rule": "G13"}
    return [*nans, unscaled, *halves]


def _decode_quantized() -> list[Case]:
    return [
        _decode(_spec(dtype, scale, zero_point), _stored_for(dtype, zero_point))
        for dtype, zero_points in QUANTIZED
        for scale in SCALES
        for zero_point in zero_points
    ]


def _stored_for(dtype: str, zero_point: int) -> NDArray[Any]:
    """Take the ends, what is around the zero point, and for int32 what float32 does not hold."""
    ends = np.iinfo(dtype)
    wanted = {ends.min, ends.min + 1, zero_point - 1, zero_point, zero_point + 1, ends.max}
    if dtype == "int32":
        wanted |= {2**24 + 1, -(2**24) - 1, 2**24 + zero_point + 1}
    return np.array(sorted(x for x in wanted if ends.min <= x <= ends.max), dtype)


def _decode_others() -> list[Case]:
    return [
        _decode(_spec("float16"), np.array(HALF_BITS, np.uint16).view(np.float16)),
        _decode(_spec("float32"), np.float32(SINGLES)),
        _decode(_spec("int64"), np.int64([0, -1, 2**24 + 1])),
        *(
            _decode(_spec(dtype, type="integer"), INTEGERS.astype(dtype))
            for dtype in ("int32", "int64")
        ),
        _decode(_spec("uint8", type="pixels"), BYTES),
    ]


def _decode(spec: TensorSpec, stored: NDArray[Any]) -> Case:
    values = decode(spec, stored)
    return {**_head(spec), "stored": bits(stored), "to": str(values.dtype), "values": bits(values)}


def _frame_values() -> list[tuple[str, NDArray[Any]]]:
    return [
        ("float32", np.float32(PIXELS)),
        ("float16", np.float16([-0.5, 0.5, 1.5, 127.4375, 254.5, 255.5, 65504.0])),
        ("int32", np.int32([-(2**31), -1, 0, 7, 255, 256, 2**31 - 1])),
        ("uint8", np.uint8([0, 7, 255])),
    ]


def _frames(dtype: str, stored: NDArray[Any]) -> Case:
    spec = TensorSpec(name="frames", shape=stored.shape, dtype=dtype, type="pixels")
    frames = GraphSession("vae_decoder", [], [spec], lambda feeds: [stored]).run({})["frames"]
    return {"dtype": dtype, "stored": bits(stored), "bytes": bits(frames)}


def _spec(
    dtype: Any,
    scale: float | None = None,
    zero_point: int | None = None,
    type: ValueType = "real",
) -> TensorSpec:
    return TensorSpec(
        name="x", shape=(0,), dtype=dtype, scale=scale, zero_point=zero_point, type=type
    )


def _head(spec: TensorSpec) -> Case:
    scale = None if spec.scale is None else bits(np.float32([spec.scale]))[0]
    return {
        "type": spec.type,
        "dtype": spec.dtype,
        "scale": scale,
        "zero_point": spec.zero_point,
    }
