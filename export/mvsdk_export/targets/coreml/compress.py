"""Compression of the weights of a converted network: `constexpr` operations in place of constants.

Only weights change: activations, and whatever no recorded call says how to measure, stay float16.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsdk_export.errors import CompressionError
from mvsdk_export.graphs.capture import capture
from mvsdk_export.quantize.activations import Feed
from mvsdk_export.quantize.mixed import Assignment, assign
from mvsdk_export.quantize.weights import (
    FLOAT16,
    Compressed,
    Linear,
    WeightScheme,
    check_scheme,
    divisor,
)
from mvsdk_export.targets.coreml.package import (
    WeightReader,
    WeightWriter,
    block_of,
    constants_of,
    data_types,
    kind_of,
    read_model,
    shape_of,
    weight_files,
    write_package,
)

LEAST_ELEMENTS = 1024
"""Smaller weights stay as they are: there is little to save."""
PALETTE_GROUP = 16
"""Output channels that share a palette unless told otherwise; fewer where they do not divide."""
FINE_GROUP, FINE_INPUTS = 4, 256
BLOCK = 32
"""Inputs that share a scale, where one for each channel is too coarse."""
BLOCKWISE_VERSION = 9
"""Specification version of iOS 18, the first with scales by blocks and palettes by channels."""

_NOMINAL_BITS = {"w8": 8, "w6": 6, "w4": 4}


def compress_package(
    source: Path,
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    feeds: Sequence[Feed],
    path: Path,
    *,
    precision: str,
    target_db: float,
    group: int | None = None,
) -> Assignment:
    """Write a package with compressed weights.

    Args:
        source: The float16 package.
        network: The network that it was converted of, in the same forms.
        inputs: Example of every input, in the order of `forward`.
        feeds: Inputs of recorded calls, which decide what weight gets how many bits.
        path: The .mlpackage folder to write.
        precision: w8, w6 or w4: the width that most weights shall have.
        target_db: SQNR that the output shall keep on the recorded calls.
        group: Output channels that share a palette; None for `PALETTE_GROUP`, or fewer where that
            does not divide the channels of a weight.

    Raises:
        CompressionError: If palettes for so many channels are impossible for a weight, or there is
            no weight.
    """
    model = read_model(source)
    files = weight_files(source)
    if not files:
        raise CompressionError(f"{source.name} has no weights to compress; export it as fp16")
    reader = WeightReader(files[0])
    block = block_of(model.mlProgram)
    blockwise = model.specificationVersion >= BLOCKWISE_VERSION
    module = capture(network, inputs).module(check_guards=False)
    names = _match(block.operations, reader, module)
    weights = module.state_dict()
    candidates = {
        name: schemes_for(name, tuple(weights[name].shape), precision, blockwise, group)
        for name in names.values()
    }
    found = assign(module, candidates, feeds, target_db=target_db)
    del module
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        writer = WeightWriter(Path(folder))
        _rewrite(block.operations, reader, writer, names, found.weights, blockwise)
        write_package(model, [writer.path], path)
    return found


def schemes_for(
    name: str, shape: tuple[int, ...], precision: str, blockwise: bool, group: int | None
) -> list[WeightScheme]:
    """Return how a weight may be stored, from few bits to many.

    Args:
        name: What errors call it.
        shape: (D, inputs, ...).
        precision: w8, w6 or w4.
        blockwise: Whether scales by blocks and palettes by channels are there (iOS 18).
        group: As `compress_package` takes it.

    Raises:
        CompressionError: As `compress_package`.
    """
    groups = [0]
    if blockwise and group is not None:
        groups = [group]
    elif blockwise:
        # Fewer channels to a palette where a channel has so many inputs that it hardly counts.
        many = math.prod(shape[1:]) >= FINE_INPUTS
        groups = [
            divisor(shape[0], most) for most in (PALETTE_GROUP, *([FINE_GROUP] if many else []))
        ]
    palettes = [
        WeightScheme(kind="palette", bits=bits, group=size)
        for bits in (4, 6)
        if bits >= _NOMINAL_BITS[precision]
        for size in groups
    ]
    finer = [WeightScheme(kind="palette", bits=8, group=groups[0])]
    if blockwise and shape[1] % BLOCK == 0:
        finer.append(WeightScheme(kind="linear", bits=8, block=BLOCK))
    schemes = [*palettes, WeightScheme(kind="linear", bits=8), *finer, FLOAT16]
    for scheme in schemes:
        check_scheme(name, shape, scheme)
    return schemes


def _match(operations: Sequence[Any], reader: WeightReader, module: nn.Module) -> dict[str, str]:
    """Return name of a constant -> name of the weight of the network that it holds.

    They are told by their values, which a converter leaves alone, other than names and shapes.
    """
    known: dict[bytes, str] = {}
    for name, weight in module.state_dict().items():
        if weight.is_floating_point() and weight.dim() >= 2 and weight.numel() >= LEAST_ELEMENTS:
            known.setdefault(_digest(weight.to(torch.float16).numpy()), name)
    found: dict[str, str] = {}
    for operation, value in constants_of(operations):
        if kind_of(value.type) == "float16" and len(shape_of(value.type)) >= 2:
            name = known.get(_digest(reader.read(value)))
            if name is not None:
                found[operation.outputs[0].name] = name
    return found


def _digest(values: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


def _rewrite(
    operations: Sequence[Any],
    reader: WeightReader,
    writer: WeightWriter,
    names: Mapping[str, str],
    weights: Mapping[str, Compressed],
    blockwise: bool,
) -> None:
    """Copy all constants to another file, those with compressed weights as what decodes them."""
    for operation, value in list(constants_of(operations)):
        found = weights.get(names.get(operation.outputs[0].name, ""))
        if found is None:
            writer.refer(value, reader.read(value), kind_of(value.type))
            continue
        shape = shape_of(value.type)
        del operation.attributes["val"]
        if isinstance(found, Linear):
            _decode_linear(operation, found, shape, writer, blockwise)
        else:
            _decode_palette(operation, found, shape, writer, blockwise)


def _decode_linear(
    operation: Any, found: Linear, shape: Sequence[int], writer: WeightWriter, blockwise: bool
) -> None:
    data = found.data.reshape(shape)
    if blockwise:
        operation.type = "constexpr_blockwise_shift_scale"
        blocks = found.scale.shape[1]
        scale = found.scale.reshape(shape[0], blocks, *[1] * (len(shape) - 2))
        writer.refer(_input(operation, "data"), data, "int8")
        writer.refer(_input(operation, "scale"), scale, "float16")
        return
    operation.type = "constexpr_affine_dequantize"
    scale = found.scale.ravel()
    writer.refer(operation.attributes["quantized_data"], data, "int8")
    writer.refer(operation.attributes["scale"], scale, "float16")
    writer.refer(operation.attributes["zero_point"], np.zeros(len(scale), np.int8), "int8")
    axis = operation.attributes["axis"]
    axis.type.tensorType.dataType = data_types()["int32"]
    axis.immediateValue.tensor.ints.values.append(0)


def _decode_palette(
    operation: Any, found: Any, shape: Sequence[int], writer: WeightWriter, blockwise: bool
) -> None:
    operation.type = "constexpr_lut_to_dense"
    indices = found.indices.reshape(shape)
    if blockwise:
        groups, count = found.values.shape
        values = found.values.reshape(groups, *[1] * (len(shape) - 1), count, 1)
        writer.refer(_input(operation, "indices"), indices, f"uint{found.bits}")
        writer.refer(_input(operation, "lut"), values, "float16")
        return
    writer.refer(operation.attributes["indices"], _packed(indices, found.bits), "uint8")
    writer.refer(operation.attributes["lut"], found.values.ravel(), "float16")
    said = operation.attributes["shape"]
    said.type.tensorType.dataType = data_types()["uint32"]
    said.type.tensorType.rank = 1
    said.type.tensorType.dimensions.add().constant.size = len(shape)
    said.immediateValue.tensor.bytes.values = np.array(shape, "<u4").tobytes()


def _input(operation: Any, name: str) -> Any:
    """Add an input that is a constant, and return its value."""
    return operation.inputs[name].arguments.add().value


def _packed(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return indices as a stream of bits, the lowest first."""
    spread = np.unpackbits(indices.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(spread.ravel(), bitorder="little")
