"""Constants of ML programs, compressed ones included, decoded by the format's own description.

Reference:
    Core ML's Model Intermediate Language: `constexpr_*` of iOS 16 (attributes) and iOS 18 (inputs).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsdk.errors import BundleError
from mvsdk_export.checker.package import Package
from mvsdk_export.checker.values import read_immediate, tensor_type

Array = NDArray[Any]


def read_value(package: Package, value: Any) -> Any:
    """Read a constant, from the description or from a file of weights."""
    if value.WhichOneof("value") == "immediateValue":
        return read_immediate(value)
    kind = tensor_type(value.type)
    place = value.blobFileValue
    return package.blob(place.fileName).read(place.offset, kind.dtype, kind.shape)


def decode(package: Package, operation: Any, known: Mapping[str, Any]) -> Any:
    """Return what a `const` or `constexpr_*` operation stands for.

    Args:
        package: Has the files of weights.
        operation: The operation.
        known: Constants before it, by name.

    Raises:
        BundleError: If its parts do not fit.
    """
    if operation.type == "const":
        return read_value(package, operation.attributes["val"])
    given = {
        name: read_value(package, value)
        for name, value in operation.attributes.items()
        if name != "name"
    }
    for name, argument in operation.inputs.items():
        (item,) = argument.arguments
        bound = item.WhichOneof("binding") == "name"
        given[name] = known[item.name] if bound else read_value(package, item.value)
    shape = tensor_type(operation.outputs[0].type).shape
    try:
        found = DECODERS[operation.type](given, shape)
    except (KeyError, ValueError, IndexError) as exc:
        raise BundleError(
            f"the constant {operation.outputs[0].name[:64]!a} ({operation.type}) is damaged: "
            f"{exc}; export the package again"
        ) from exc
    if isinstance(found, tuple):
        return found
    if found.shape != shape:
        raise BundleError(
            f"the constant {operation.outputs[0].name[:64]!a} decodes to {found.shape}, its type "
            f"says {shape}; export the package again"
        )
    return found


def _affine_dequantize(given: Mapping[str, Any], shape: Sequence[int]) -> Array:
    """Decode iOS 16's integers: `scale * (data - zero_point)`, along an axis."""
    data = given["quantized_data"]
    axis = int(given["axis"])
    along = [1] * data.ndim
    along[axis] = -1
    scale, zero = given["scale"], given["zero_point"]
    scale = scale.reshape(along) if scale.ndim else scale
    zero = zero.reshape(along) if zero.ndim else zero
    real = (data.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)
    return real.astype(scale.dtype)


def _lut_to_dense(given: Mapping[str, Any], shape: Sequence[int]) -> Array:
    lut, indices = given["lut"], given["indices"]
    if "shape" in given:  # iOS 16: packed indices, one palette
        sizes = [int(x) for x in np.asarray(given["shape"]).ravel()]
        bits = int(math.log2(lut.size))
        stream = np.unpackbits(
            indices.astype(np.uint8), bitorder="little", count=math.prod(sizes) * bits
        )
        places = (stream.reshape(-1, bits) * (1 << np.arange(bits))).sum(axis=1)
        return lut.ravel()[places].reshape(sizes)
    return _grouped_lut(lut, indices, int(given.get("vector_axis", -1)))


def _grouped_lut(lut: Array, indices: Array, vector_axis: int) -> Array:
    """Decode iOS 18's palettes: each block of the weight has its own, of numbers or of vectors.

    The palettes have a size for each axis of the weight (blocks along it), then the number of
    entries, then the length of a vector, which is laid along `vector_axis`.
    """
    rank = indices.ndim
    blocks, length = lut.shape[:rank], lut.shape[-1]
    places = []
    for axis, (size, count) in enumerate(zip(indices.shape, blocks, strict=True)):
        if size % count:
            raise ValueError(f"{count} palettes along an axis of {size}")
        along = [1] * rank
        along[axis] = size
        places.append((np.arange(size) // (size // count)).reshape(along))
    values = lut[(*places, indices)]  # like the indices, then the vector
    if length == 1:
        return values[..., 0]
    axis = vector_axis % rank
    moved = np.moveaxis(values, -1, axis + 1)
    shape = list(indices.shape)
    shape[axis] *= length
    return moved.reshape(shape)


def _sparse_to_dense(given: Mapping[str, Any], shape: Sequence[int]) -> Array:
    values, mask = given["nonzero_data"], given["mask"]
    if "shape" in given:  # iOS 16: a packed mask
        sizes = [int(x) for x in np.asarray(given["shape"]).ravel()]
        bits = np.unpackbits(mask.astype(np.uint8), bitorder="little", count=math.prod(sizes))
        mask = bits.reshape(sizes)
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask.astype(bool)] = values.ravel()
    return dense


def _cast(given: Mapping[str, Any], shape: Sequence[int]) -> Array:
    kinds = {"fp16": np.float16, "fp32": np.float32}
    return given["source_val"].astype(kinds[str(given["output_dtype"])])


def _blockwise(given: Mapping[str, Any], shape: Sequence[int]) -> Array:
    """Decode iOS 18's integers: a scale and an offset for each block of the weight."""
    data, scale = given["data"], given["scale"]
    real = data.astype(np.float32)
    if given.get("offset") is not None:
        real = real - _spread(given["offset"], data.shape).astype(np.float32)
    return (real * _spread(scale, data.shape).astype(np.float32)).astype(scale.dtype)


def _spread(values: Array, shape: Sequence[int]) -> Array:
    """Repeat what each block has to every element of it."""
    for axis, size in enumerate(shape):
        if size % values.shape[axis]:
            raise ValueError(f"{values.shape[axis]} blocks along an axis of {size}")
        values = np.repeat(values, size // values.shape[axis], axis=axis)
    return values


def _lut_to_sparse(given: Mapping[str, Any], shape: Sequence[int]) -> tuple[Array, Array]:
    mask, indices, lut = given["indices_mask"], given["indices_nonzero_data"], given["lut"]
    dense = np.zeros(mask.shape, np.uint8)
    dense[mask.astype(bool)] = indices.ravel()
    values = _grouped_lut(lut, dense, int(given.get("vector_axis", -1)))
    return mask, values[mask.astype(bool)]


def _sparse_blockwise(given: Mapping[str, Any], shape: Sequence[int]) -> tuple[Array, Array]:
    mask = given["data_mask"]
    dense = np.zeros(mask.shape, given["nonzero_data"].dtype)
    dense[mask.astype(bool)] = given["nonzero_data"].ravel()
    parts = {"data": dense, "scale": given["scale"], "offset": given.get("offset")}
    return mask, _blockwise(parts, shape)[mask.astype(bool)]


DECODERS: Mapping[str, Callable[[Mapping[str, Any], Sequence[int]], Any]] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise,
    "constexpr_sparse_to_dense": _sparse_to_dense,
}
