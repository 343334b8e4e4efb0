"""Cutting of a package into chunks that run one after the other, as a Core ML pipeline or alone.

The Neural Engine maps the weights of one program at once, and phones refuse what is too large:
public Stable Diffusion packages are cut in two for iOS. Values cross a cut in the type that they
have in the program, so that chunks compute exactly what the whole does.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from mvsdk.cli.output import format_bytes
from mvsdk_export.errors import ExportError
from mvsdk_export.targets.coreml.neural_engine import is_constant
from mvsdk_export.targets.coreml.package import (
    WEIGHTS,
    Model,
    Operation,
    WeightReader,
    WeightWriter,
    block_of,
    constants_of,
    kind_of,
    read_model,
    shape_of,
    weight_files,
    write_package,
)

_CROSSING = {"float16": 65552, "float32": 65568, "int32": 131104}
"""Types of tensors that may cross, with their number in `ArrayFeatureType`."""
_BITS = {"float16": 16, "float32": 32, "int32": 32, "bool": 8, "int4": 4}
_FILE_BYTES, _BLOB_BYTES = 64, 128
"""Beside the weights: of a file, and at most of each of them, whose start is a multiple of 64."""
_SLACK = 0.2
"""Share of a chunk by which a cut may miss the place of equal weights, to cross less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A range of the operations of a program."""

    operations: tuple[Operation, ...]
    """In order, with the constants that they read."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def make_pipeline(source: Path, target: Path, *, chunk_bytes: int) -> bool:
    """Write a package whose model is a pipeline of chunks, which is loaded and run as one.

    Args:
        source: The package; it has one function.
        target: Where the pipeline is written.
        chunk_bytes: Most weights of a chunk, as stored.

    Returns:
        Whether it was cut: nothing is written of a package that is within the limit.

    Raises:
        ExportError: If there is no place to cut.
    """
    if sum(file.stat().st_size for file in weight_files(source)) <= chunk_bytes:
        return False
    whole = read_model(source)
    pipeline = type(whole)()
    pipeline.specificationVersion = whole.specificationVersion
    pipeline.description.CopyFrom(whole.description)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        files: list[Path] = []
        for index, model in enumerate(_chunk_models(source, chunk_bytes)):
            # As coremltools names the files of a pipeline.
            files.append(_copy_weights(model, source, Path(folder), f"{index}-weight.bin"))
            pipeline.pipeline.models.append(model)
        write_package(pipeline, files, target)
    return True


def split_pipeline(source: Path, folder: Path) -> list[Path]:
    """Write the chunks of a pipeline as packages of their own.

    Args:
        source: Package that `make_pipeline` wrote.
        folder: Where they are written.

    Returns:
        The packages, in the order in which they run.
    """
    found: list[Path] = []
    for index, model in enumerate(read_model(source).pipeline.models, start=1):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            reader = WeightReader(source / WEIGHTS / f"{index - 1}-weight.bin")
            writer = WeightWriter(Path(scratch))
            for _, value in list(constants_of(block_of(model.mlProgram).operations)):
                writer.refer(value, reader.read(value), kind_of(value.type))
            path = folder / f"chunk{index}.mlpackage"
            write_package(model, [writer.path], path)
            found.append(path)
    return found


def _chunk_models(source: Path, chunk_bytes: int) -> Iterator[Model]:
    """Yield the description of every chunk, whose weights are still those of the whole."""
    whole = read_model(source)
    block = block_of(whole.mlProgram)
    inputs = [item.name for item in whole.mlProgram.functions["main"].inputs]
    found = split_operations(block.operations, inputs, list(block.outputs), chunk_bytes)
    types = {item.name: item.type for item in whole.mlProgram.functions["main"].inputs}
    types |= {item.name: item.type for x in block.operations for item in x.outputs}
    for chunk in found:
        model = type(whole)()
        model.CopyFrom(whole)
        _describe(model, chunk, types)
        yield model


def split_operations(
    operations: Sequence[Operation], inputs: Sequence[str], outputs: Sequence[str], chunk_bytes: int
) -> list[Chunk]:
    """Cut operations into as few ranges of about equal weights as can be, where little crosses.

    Args:
        operations: Of one block, in order.
        inputs: Names of the inputs of the whole.
        outputs: Names of its outputs.
        chunk_bytes: Most weights of a range.

    Raises:
        ExportError: If no cuts leave so little in every range.
    """
    constants = {x.outputs[0].name: x for x in operations if is_constant(x)}
    steps = [x for x in operations if not is_constant(x)]
    total = _FILE_BYTES + sum(map(_weight_bytes, constants.values()))
    for count in range(math.ceil(total / chunk_bytes), len(steps) + 1):
        places = _places(steps, constants, outputs, count)
        if places is None:
            break
        found = _ranges(steps, constants, inputs, outputs, [0, *places, len(steps)])
        if all(_FILE_BYTES + sum(map(_weight_bytes, x.operations)) <= chunk_bytes for x in found):
            return found
    largest = max(map(_weight_bytes, constants.values()), default=0)
    raise ExportError(
        f"a program of {len(steps)} operations with {format_bytes(total)} of weights, the largest "
        f"of {format_bytes(largest)}, cannot be cut into chunks of {format_bytes(chunk_bytes)}; "
        "allow larger ones with --chunk-bytes"
    )


def _ranges(
    steps: Sequence[Operation],
    constants: Mapping[str, Operation],
    inputs: Sequence[str],
    outputs: Sequence[str],
    places: Sequence[int],
) -> list[Chunk]:
    """Return what lies between these places, with what it reads and gives."""
    found: list[Chunk] = []
    given: set[str] = set(inputs)
    for start, end in pairwise(places):
        part = steps[start:end]
        read = dict.fromkeys(name for x in part for name in _reads(x))
        made = dict.fromkeys(item.name for x in part for item in x.outputs)
        later = {name for x in steps[end:] for name in _reads(x)} | set(outputs)
        own = [constants[name] for name in read if name in constants]
        found.append(
            Chunk(
                operations=(*own, *part),
                inputs=tuple(name for name in read if name in given),
                outputs=tuple(name for name in made if name in later),
            )
        )
        given |= made.keys()
    return found


def _places(
    steps: Sequence[Operation],
    constants: Mapping[str, Operation],
    outputs: Sequence[str],
    chunks: int,
) -> list[int] | None:
    """Return where to cut: before which steps; None if there are not so many places."""
    sizes: list[int] = []
    seen: set[str] = set()
    for step in steps:
        new = {name for name in _reads(step) if name in constants and name not in seen}
        seen |= new
        sizes.append(sum(_weight_bytes(constants[name]) for name in new))
    total, crossing = sum(sizes), _crossing_bytes(steps, outputs)
    before = [0, *accumulate(sizes)]
    possible = [index for index in range(1, len(steps)) if crossing[index] is not None]
    found: list[int] = []
    for cut in range(1, chunks):
        ideal = total * cut / chunks
        behind = [index for index in possible if not found or index > found[-1]]
        near = [i for i in behind if abs(before[i] - ideal) <= _SLACK * total / chunks]
        if near:
            found.append(min(near, key=lambda i: (crossing[i] or 0, abs(before[i] - ideal))))
        elif behind:
            found.append(min(behind, key=lambda i: abs(before[i] - ideal)))
    return found if len(found) == chunks - 1 else None


def _crossing_bytes(steps: Sequence[Operation], outputs: Sequence[str]) -> list[int | None]:
    """Return the bytes that cross a cut before each step; None where something cannot."""
    last: dict[str, int] = dict.fromkeys(outputs, len(steps))
    for index, step in enumerate(steps):
        for name in _reads(step):
            last[name] = max(index, last.get(name, 0))
    ends: dict[int, list[tuple[int, bool]]] = {}
    alive, stuck = 0, 0
    found: list[int | None] = []
    for index, step in enumerate(steps):
        for size, crosses in ends.pop(index, []):
            alive, stuck = alive - size, stuck - (not crosses)
        found.append(None if stuck else alive)
        for item in step.outputs:
            if last.get(item.name, -1) > index:
                size, crosses = _size_of(item.type)
                alive, stuck = alive + size, stuck + (not crosses)
                ends.setdefault(last[item.name] + 1, []).append((size, crosses))
    return found


def _describe(model: Model, chunk: Chunk, types: Mapping[str, Any]) -> None:
    """Let a description be that of a chunk, in place."""
    function = model.mlProgram.functions["main"]
    block = block_of(model.mlProgram)
    for field, names in (("input", chunk.inputs), ("output", chunk.outputs)):
        kept = {x.name: x for x in getattr(model.description, field)}
        described = [kept.get(name) or _feature(model, name, types[name]) for name in names]
        model.description.ClearField(field)
        getattr(model.description, field).extend(described)
    del function.inputs[:]
    for name in chunk.inputs:
        function.inputs.add(name=name).type.CopyFrom(types[name])
    del block.operations[:]
    block.operations.extend(chunk.operations)
    del block.outputs[:]
    block.outputs.extend(chunk.outputs)


def _feature(model: Model, name: str, kind: Any) -> Any:
    """Return the description of a tensor that crosses a cut."""
    described = type(model.description)().input.add(name=name)
    described.type.multiArrayType.shape.extend(shape_of(kind))
    described.type.multiArrayType.dataType = _CROSSING[kind_of(kind)]
    return described


def _copy_weights(model: Model, source: Path, folder: Path, name: str) -> Path:
    """Write the weights that a description refers to, and let it refer to them there."""
    (file,) = weight_files(source)
    reader, writer = WeightReader(file), WeightWriter(folder, name)
    for _, value in list(constants_of(block_of(model.mlProgram).operations)):
        writer.refer(value, reader.read(value), kind_of(value.type))
    return writer.path


def _reads(operation: Operation) -> list[str]:
    return [
        item.name
        for argument in operation.inputs.values()
        for item in argument.arguments
        if item.WhichOneof("binding") == "name"
    ]


def _weight_bytes(operation: Operation) -> int:
    """Return the room of an operation's weights in a file, with what tells of them."""
    return sum(
        _BLOB_BYTES + math.ceil(math.prod(shape_of(value.type)) * _bits_of(kind_of(value.type)) / 8)
        for _, value in constants_of([operation])
    )


def _bits_of(kind: str) -> int:
    return _BITS.get(kind) or int(kind.lstrip("uint"))


def _size_of(kind: Any) -> tuple[int, bool]:
    """Return the bytes of a value, and whether it may cross."""
    if kind.WhichOneof("type") != "tensorType" or not shape_of(kind):
        return 0, False
    name = kind_of(kind)
    if name not in _CROSSING:
        return 0, False
    return math.prod(shape_of(kind)) * _BITS[name] // 8, True
