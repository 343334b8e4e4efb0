"""What goes in and out of a graph (G13 to G17)."""

from ctypes import c_float
from math import isfinite, isnan
from struct import pack, unpack
from typing import Any

from .document import need

SPANS = {"int8": (-(2**7), 2**7), "int16": (-(2**15), 2**15), "int32": (-(2**31), 2**31)}
SPANS |= {"int64": (-(2**63), 2**63), "uint8": (0, 2**8), "uint16": (0, 2**16)}


def float32(x: float) -> float:
    """The nearest float32, beyond the largest one infinity."""
    return c_float(x).value


def float16(x: float) -> float:
    """The nearest float16 (G15)."""
    need(isnan(x) or abs(x) < 65520, "G15", "")
    return unpack("e", pack("e", x))[0]


def quantise(x: float, scale: float, zero: int, dtype: str) -> int:
    """A real value for a quantised tensor (G13)."""
    need(not isnan(x), "G13", "")
    low, high = SPANS[dtype]
    quotient = min(max(float32(x / float32(scale)), -1e30), 1e30)  # infinity is clipped
    return min(max(round(quotient) + zero, low), high - 1)


def encode(tensor: dict[str, Any], values: list[Any]) -> list[Any]:
    """Values, floats or integers, as a tensor stores them."""
    dtype, scale = tensor["dtype"], tensor["scale"]
    if dtype in ("float32", "float16"):
        return list(map(float32 if dtype == "float32" else float16, values))
    if scale is not None or any(isinstance(x, float) for x in values):
        return [quantise(x, scale or 1, tensor["zero_point"] or 0, dtype) for x in values]
    need(all(x in range(*SPANS[dtype]) for x in values), "G16", "")
    return values


def decode(tensor: dict[str, Any], stored: list[Any]) -> list[Any]:
    """What a tensor stores as values."""
    if tensor["scale"] is None:
        return stored
    scale, zero = float32(tensor["scale"]), tensor["zero_point"]
    return [float32(scale * float32(x - zero)) for x in stored]


def pixels(stored: list[Any]) -> list[int]:
    """Bytes of what a graph gives (G17)."""
    need(all(map(isfinite, stored)), "G17", "")
    return [min(max(round(x), 0), 255) for x in stored]
