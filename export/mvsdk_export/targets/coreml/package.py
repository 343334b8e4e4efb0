"""Writing of `.mlpackage` folders: a model's description and its file of weights.

coremltools converts a network once; all that follows (compression, cutting, several functions in
one package) edits the saved description and copies weights one at a time, so that none of it ever
holds a whole network. Equal models give equal bytes: identifiers and dates are left out or derived.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsdk_export.targets.coreml.tools import load_protocol, load_storage

SPECIFICATION = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights")
WEIGHT_FILE = "weight.bin"

_AUTHOR = "com.apple.CoreML"
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of addresses, as in RFC 9562

_SUFFIXES = {"float16": "fp16", "float32": "float"}
"""Types that coremltools' storage calls otherwise."""

Program = Any
"""`MIL_pb2.Program` of coremltools."""
Model = Any
"""`Model_pb2.Model` of coremltools."""
Operation = Any
"""`MIL_pb2.Operation` of coremltools."""


def write_package(model: Model, weights: Sequence[Path], path: Path) -> None:
    """Write an .mlpackage folder; an existing one is replaced.

    Args:
        model: Description.
        weights: Files of weights, under the names by which the description knows them.
        path: The folder.
    """
    shutil.rmtree(path, ignore_errors=True)
    (path / WEIGHTS).mkdir(parents=True)
    (path / SPECIFICATION).write_bytes(model.SerializeToString(deterministic=True))
    for file in weights:
        link_or_copy(file, path / WEIGHTS / file.name)
    entries = {
        _identifier("weights"): _entry("Model Weights", "weights", f"{_AUTHOR}/weights"),
        _identifier("model"): _entry(
            "Model Specification", "model.mlmodel", f"{_AUTHOR}/model.mlmodel"
        ),
    }
    if not weights:
        (path / WEIGHTS).rmdir()
        del entries[_identifier("weights")]
    content = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": _identifier("model"),
    }
    (path / "Manifest.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def read_model(path: Path) -> Model:
    """Read the description of a package of our own making; the checker reads others."""
    model: Any = load_protocol()[0].Model()
    model.ParseFromString((path / SPECIFICATION).read_bytes())
    return model


def weight_files(path: Path) -> list[Path]:
    """Return the files of weights of a package."""
    return sorted((path / WEIGHTS).glob("*.bin"))


def block_of(program: Program, function: str = "main") -> Any:
    """Return the operations and outputs of a function: programs of ours have one form of each."""
    (block,) = program.functions[function].block_specializations.values()
    return block


class WeightReader:
    """Reads a file of weights of our own making."""

    def __init__(self, path: Path) -> None:
        """Open a file."""
        self._reader = load_storage()._BlobStorageReader(str(path))

    def read(self, value: Any) -> NDArray[Any]:
        """Return the constant that a `MIL_pb2.Value` refers to, in its shape.

        Values of less than a byte come as one byte each.
        """
        kind = kind_of(value.type)
        name = _SUFFIXES.get(kind, kind)
        found = np.asarray(getattr(self._reader, f"read_{name}_data")(value.blobFileValue.offset))
        if kind == "float16":
            found = found.view(np.float16)
        return found.reshape(shape_of(value.type))


class WeightWriter:
    """Writes a file of weights; equal values are written once.

    The layout is coremltools' own writer's: what is checked by our reader is not made by it.
    """

    def __init__(self, folder: Path, name: str = WEIGHT_FILE) -> None:
        """Begin a file.

        Args:
            folder: Where it is made.
            name: Name of the file, in the folder and in the description.
        """
        self.path = folder / name
        self.path.unlink(missing_ok=True)
        self._writer = load_storage()._BlobStorageWriter(str(self.path))
        self._known: dict[tuple[str, bytes], int] = {}

    def refer(self, value: Any, data: NDArray[Any], kind: str) -> None:
        """Write data, and let a constant be that.

        Args:
            value: A `MIL_pb2.Value`, changed in place.
            data: In the shape of the constant; values of less than a byte as one byte each.
            kind: Type in the file: float16, float32, int8, uint8, int16, uint16, int32, uint32,
                int4, uint1, uint2, uint3, uint4 or uint6.
        """
        flat = np.ascontiguousarray(data).ravel()
        key = (kind, hashlib.sha256(flat.tobytes()).digest())
        if key not in self._known:
            stored = flat.view(np.uint16) if kind == "float16" else flat
            name = _SUFFIXES.get(kind, kind)
            self._known[key] = getattr(self._writer, f"write_{name}_data")(stored)
        value.Clear()
        set_type(value.type, data_types()[kind], data.shape)
        value.blobFileValue.fileName = f"@model_path/weights/{self.path.name}"
        value.blobFileValue.offset = self._known[key]


def constants_of(operations: Sequence[Operation]) -> Iterator[tuple[Operation, Any]]:
    """Yield the operations that read files of weights with each value that is there."""
    for operation in operations:
        for value in operation.attributes.values():
            if value.WhichOneof("value") == "blobFileValue":
                yield operation, value
        for argument in operation.inputs.values():
            for item in argument.arguments:
                if item.WhichOneof("binding") == "value" and item.value.HasField("blobFileValue"):
                    yield operation, item.value


def data_types() -> dict[str, int]:
    """Return the numbers of `MIL_pb2.DataType` by name, in lower case."""
    known = load_protocol()[1].DataType
    return {name.lower(): number for name, number in known.items()}


def kind_of(kind: Any) -> str:
    """Return the type of the elements of a `MIL_pb2.ValueType` of a tensor, such as float16."""
    number = kind.tensorType.dataType
    return next(name for name, known in data_types().items() if known == number)


def shape_of(kind: Any) -> tuple[int, ...]:
    """Return the shape of a `ValueType` of a tensor."""
    return tuple(dimension.constant.size for dimension in kind.tensorType.dimensions)


def set_type(kind: Any, dtype: int, shape: Sequence[int]) -> None:
    """Make a `ValueType` that of a tensor.

    Args:
        kind: Changed in place.
        dtype: A `MIL_pb2.DataType`.
        shape: Sizes.
    """
    kind.Clear()
    kind.tensorType.dataType = dtype
    kind.tensorType.rank = len(shape)
    for size in shape:
        kind.tensorType.dimensions.add().constant.size = size


def set_metadata(model: Model, metadata: Mapping[str, str]) -> None:
    """Replace what a model says about itself, such as which tools made it."""
    said = model.description.metadata.userDefined
    said.clear()
    for key, text in sorted(metadata.items()):
        said[key] = text


def _entry(description: str, name: str, path: str) -> dict[str, str]:
    return {
        "author": _AUTHOR,
        "description": f"CoreML {description}",
        "name": name,
        "path": path,
    }


def _identifier(name: str) -> str:
    """Return an identifier of an item; Core ML wants it unique in its package only."""
    return str(uuid.uuid5(_NAMESPACE, name)).upper()


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Put a file in another place, without its content where the file system can."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
