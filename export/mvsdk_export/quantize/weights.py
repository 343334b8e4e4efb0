"""Forms of weights in fewer bits: linear ones with scales, and palettes.

Plain arrays, of no target: which of them a target can store is the target's business. Activations
stay what they are. What is stored is float16 where it is not an index or an integer, and `dense` is
what a runtime computes from it, bit by bit.

Reference:
    Han et al. 2016, arXiv:1510.00149 (weights that share values); Lloyd 1982, doi:10.1109/
    TIT.1982.1056489 (k-means of numbers, by means between midpoints).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvsdk_export.errors import CompressionError

PALETTE_BITS = (1, 2, 3, 4, 6, 8)
"""Widths of indices that phones can store."""
_ROUNDS = 100
_SHRINK = (1.0, 0.97, 0.94, 0.9, 0.86, 0.82, 0.78, 0.7)
"""Shares of the largest weight that a scale may reach to: clipping a few may pay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightScheme:
    """How a weight `(D, ...)` is stored."""

    kind: Literal["float16", "linear", "palette"]
    bits: int = 16
    block: int = 0
    """Elements of an input axis that share a scale; 0: all of an output channel do."""
    group: int = 0
    """Output channels that share a palette; 0: all do."""

    def __str__(self) -> str:
        """Return what people call it, such as "palette 6 bits by 16 channels"."""
        if self.kind == "float16":
            return "float16"
        part = f" by {self.group} channels" if self.group else ""
        part = f" by {self.block} inputs" if self.block else part
        return f"{self.kind} {self.bits} bits{part}"


FLOAT16 = WeightScheme(kind="float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Integers with a float16 scale each channel or block: `data * scale`."""

    data: NDArray[np.int8]
    """As the weight."""
    scale: NDArray[np.float16]
    """(D, 1, ...), or (D, inputs / block, 1, ...)."""

    @property
    def dense(self) -> NDArray[np.float16]:
        """What it stands for."""
        repeats = [a // b for a, b in zip(self.data.shape, self.scale.shape, strict=True)]
        scale = self.scale
        for axis, count in enumerate(repeats):
            scale = np.repeat(scale, count, axis=axis)
        return (self.data.astype(np.float32) * scale.astype(np.float32)).astype(np.float16)

    @property
    def stored_bytes(self) -> int:
        """Bytes of data and scales."""
        return self.data.size + self.scale.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Indices into the values of a group of output channels."""

    indices: NDArray[np.uint8]
    """As the weight."""
    values: NDArray[np.float16]
    """(groups, 2^bits), rising."""
    bits: int

    @property
    def dense(self) -> NDArray[np.float16]:
        """What it stands for."""
        groups = len(self.values)
        rows = self.indices.reshape(groups, -1)
        return np.take_along_axis(self.values, rows, axis=1).reshape(self.indices.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes of indices and values."""
        return math.ceil(self.indices.size * self.bits / 8) + self.values.nbytes


Compressed = Linear | Palette


def check_scheme(name: str, shape: tuple[int, ...], scheme: WeightScheme) -> None:
    """Refuse what a weight cannot be stored in.

    Raises:
        CompressionError: If its channels are no multiple of the group, its inputs none of the
            block, or no index has so many bits.
    """
    if scheme.kind == "palette" and scheme.bits not in PALETTE_BITS:
        raise CompressionError(
            f"{name} cannot have a palette of {scheme.bits} bits; allowed: "
            f"{', '.join(map(str, PALETTE_BITS))}"
        )
    if scheme.group and shape[0] % scheme.group:
        raise CompressionError(
            f"{name} has {shape[0]} output channels, which palettes for {scheme.group} each do not "
            f"divide; use --palette-group {divisor(shape[0], scheme.group)}, or leave it out"
        )
    if scheme.block and shape[1] % scheme.block:
        raise CompressionError(
            f"{name} has {shape[1]} inputs, which blocks of {scheme.block} do not divide; "
            f"use blocks of {divisor(shape[1], scheme.block)}"
        )


def divisor(count: int, most: int) -> int:
    """Return the largest divisor of a count up to some number."""
    return max(x for x in range(1, most + 1) if count % x == 0)


def compress(name: str, weight: NDArray[Any], scheme: WeightScheme) -> Compressed:
    """Store a weight in fewer bits, as near to it as the scheme allows.

    Args:
        name: What errors call it.
        weight: (D, ...) of at least two axes; the second is that of inputs.
        scheme: Linear or palette.

    Raises:
        CompressionError: As `check_scheme`, or if it is not finite.
    """
    check_scheme(name, weight.shape, scheme)
    values = weight.astype(np.float32)
    if not np.isfinite(values).all():
        raise CompressionError(f"{name} holds numbers that are not finite; check the checkpoint")
    if scheme.kind == "linear":
        return _compress_linear(values, scheme)
    groups = values.shape[0] // (scheme.group or values.shape[0])
    rows = values.reshape(groups, -1)
    found = np.stack([fit_palette(row, 1 << scheme.bits) for row in rows]).astype(np.float16)
    indices = np.stack(
        [_nearest(row, x.astype(np.float32)) for row, x in zip(rows, found, strict=True)]
    )
    return Palette(indices=indices.reshape(values.shape), values=found, bits=scheme.bits)


def fit_palette(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return `count` rising numbers that are near to all the values, by least squares.

    Args:
        values: Any number of them, one axis.
        count: Numbers wanted; where there are fewer different values, some stand twice.

    Reference:
        Lloyd 1982. Sums over sorted values make a round take `count` searches.
    """
    ordered = np.sort(values.astype(np.float64))
    different = ordered[np.concatenate([[True], np.diff(ordered) > 0])]
    if len(different) <= count:
        padded = np.full(count, different[-1])
        padded[: len(different)] = different
        return padded.astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    found = _spread(ordered, count)
    for _ in range(_ROUNDS):
        edges = np.searchsorted(ordered, (found[1:] + found[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(ordered)]])
        members = np.diff(edges)
        means = (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(members, 1)
        moved = np.sort(np.where(members > 0, means, found))
        if np.allclose(moved, found, rtol=1e-5, atol=0):
            break
        found = moved
    return found.astype(np.float32)


def _spread(ordered: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return where rounds begin: as dense as the cube root of the density of the values.

    Reference:
        Panter and Dite 1951, doi:10.1109/JRPROC.1951.230419: the best for many small steps.
    """
    # Neighbours that are d apart have a density of 1 / d, whose cube root over d is d^(2/3).
    mass = np.concatenate([[0.0], np.cumsum(np.diff(ordered) ** (2 / 3))])
    return np.interp((np.arange(count) + 0.5) / count * mass[-1], mass, ordered)


def _nearest(values: NDArray[np.float32], palette: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.searchsorted((palette[1:] + palette[:-1]) / 2, values).astype(np.uint8)


def _compress_linear(weight: NDArray[np.float32], scheme: WeightScheme) -> Linear:
    most = (1 << (scheme.bits - 1)) - 1
    rows = weight.reshape(weight.shape[0], -1)
    shape = (weight.shape[0], *[1] * (weight.ndim - 1))
    if scheme.block:
        blocks = weight.shape[1] // scheme.block
        rows = weight.reshape(weight.shape[0] * blocks, -1)
        shape = (weight.shape[0], blocks, *[1] * (weight.ndim - 2))
    reach = np.abs(rows).max(axis=1, keepdims=True)
    least = float(np.finfo(np.float16).smallest_subnormal)
    best, scale, data = None, np.empty(0), np.empty(0)
    for share in _SHRINK:
        tried = np.maximum(reach * share / most, least).astype(np.float16)
        stored = np.clip(np.rint(rows / tried.astype(np.float32)), -most - 1, most)
        error = np.square(stored * tried - rows).sum(axis=1, keepdims=True)
        if best is None:
            best, scale, data = error, tried, stored
            continue
        better = error < best
        best = np.where(better, error, best)
        scale, data = np.where(better, tried, scale), np.where(better, stored, data)
    return Linear(
        data=data.astype(np.int8).reshape(weight.shape),
        scale=scale.astype(np.float16).reshape(shape),
    )
