"""Compressed constants: numbers in few bits, palettes and sparse values, decoded.

iOS 16 packs indices and masks in bytes and says their shape beside them; iOS 18 has types of less
than a byte, blocks with a scale or a palette each, and results of one as parts of another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mvsdk_export.targets.coreml.checker.binding import Array, Function, Ints
from mvsdk_export.targets.coreml.checker.blob import unpack_bits
from mvsdk_export.targets.coreml.checker.operations.making import check_elements


def _affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: int) -> Array:
    """Return `scale * (quantized_data - zero_point)`; vectors lie along an axis."""
    along = [1] * quantized_data.ndim
    along[axis] = -1
    scale = scale.reshape(along if scale.ndim else ())
    zero_point = zero_point.reshape(along if zero_point.ndim else ())
    return _shift_scale(quantized_data, scale, zero_point)


def _shift_scale(data: Array, scale: Array, offset: Array | None) -> Array:
    """Compute in float32, where differences and products of few bits are exact; round once."""
    values = data.astype(np.float32)
    if offset is not None:
        values -= offset.astype(np.float32)
    values *= scale.astype(np.float32)
    return values.astype(scale.dtype)


def _blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Return `scale * (data - offset)`, where each block of the weight has its own."""
    if offset is not None:
        offset = _spread(offset, data.shape)
    return _shift_scale(data, _spread(scale, data.shape), offset)


def _spread(values: Array, shape: Sequence[int]) -> Array:
    """Give every element of a shape what its block has."""
    if values.ndim != len(shape):
        raise ValueError(f"blocks of {values.ndim} axes for {len(shape)}")
    for axis, size in enumerate(shape):
        values = np.repeat(values, _block(size, values.shape[axis]), axis=axis)
    return values


def _block(size: int, count: int) -> int:
    if not count or size % count:
        raise ValueError(f"{count} blocks along an axis of {size}")
    return size // count


def _lut_to_dense(
    indices: Array, lut: Array, shape: Ints | None = None, vector_axis: int | None = None
) -> Array:
    if shape is None:
        return _from_palettes(indices, lut, vector_axis)
    bits = lut.size.bit_length() - 1
    if lut.size != 1 << bits or bits not in (1, 2, 4, 6, 8):
        raise ValueError(f"a palette of {lut.size} entries")
    places = unpack_bits(indices.reshape(-1), bits, math.prod(shape))
    return lut.reshape(-1)[places].reshape(shape)


def _from_palettes(indices: Array, lut: Array, vector_axis: int | None) -> Array:
    """Return what indices stand for, where each block of the weight has its own palette.

    Palettes have a size for each axis of the weight (blocks along it), then the number of entries,
    then the length of an entry: a vector is laid along `vector_axis`.
    """
    rank = indices.ndim
    if lut.ndim != rank + 2:
        raise ValueError(f"palettes of {lut.ndim} axes for indices of {rank}")
    *blocks, entries, length = lut.shape
    if indices.size and int(indices.max()) >= entries:
        raise ValueError(f"index {int(indices.max())} of a palette of {entries} entries")
    palette = np.zeros((1,) * rank, np.int64)
    for axis, count in enumerate(blocks):
        along = [1] * rank
        along[axis] = -1
        block = np.arange(indices.shape[axis]) // _block(indices.shape[axis], count)
        palette = palette * count + block.reshape(along)
    check_elements([*indices.shape, length])
    values = lut.reshape(-1, length)[palette * entries + indices]
    if length == 1:
        return values[..., 0]
    if vector_axis is None:
        raise ValueError(f"vectors of {length} along no axis")
    axis = vector_axis % rank
    sizes = [size * (length if at == axis else 1) for at, size in enumerate(indices.shape)]
    return np.moveaxis(values, -1, axis + 1).reshape(sizes)


def _sparse_to_dense(nonzero_data: Array, mask: Array, shape: Ints | None = None) -> Array:
    if shape is not None:
        mask = unpack_bits(mask.reshape(-1), 1, math.prod(shape)).reshape(shape)
    kept = mask != 0
    if nonzero_data.size != int(kept.sum()):
        raise ValueError(f"{nonzero_data.size} values where the mask has {int(kept.sum())}")
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[kept] = nonzero_data.reshape(-1)
    return dense


def _lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """Return the mask, as long as vectors make it, and the values that are not zero."""
    indices = _sparse_to_dense(indices_nonzero_data, indices_mask)
    values = _from_palettes(indices, lut, vector_axis)
    mask = indices_mask
    if values.shape != mask.shape:
        mask = np.repeat(mask, lut.shape[-1], axis=vector_axis)
    return mask, values[mask != 0]


def _sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    values = _blockwise_shift_scale(_sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, values[data_mask != 0]


def _cast(source_val: Array, output_dtype: Literal["fp16", "fp32"]) -> Array:
    return source_val.astype(np.float16 if output_dtype == "fp16" else np.float32)


CONSTEXPR: Mapping[str, Function] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": _sparse_to_dense,
}
