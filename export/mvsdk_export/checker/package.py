"""A saved .mlpackage: what it holds, read defensively, as it may come from anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mvsdk.errors import BundleError
from mvsdk_export.checker.blob import BlobFile
from mvsdk_export.checker.values import TensorType, read_immediate, tensor_type
from mvsdk_export.targets.coreml.tools import load_protocol

MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 30
"""Largest description; that of a denoiser of a billion weights has a few megabytes."""
MAX_PROGRAMS = 64

_BLOB = re.compile(r"@model_path/weights/([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8"}
"""`ArrayFeatureType.ArrayDataType`, by number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a model, or a value inside."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a program, constants left out."""

    type: str
    name: str
    inputs: Mapping[str, tuple[Tensor, ...]]
    """Parameter -> what it is given; several for a list, such as what is concatenated."""
    outputs: tuple[Tensor, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Parameter -> value, of those that are small constants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One program: a model has one, a pipeline several."""

    program: Any
    """`MIL_pb2.Program`."""
    description: Any
    """`ModelDescription` or `FunctionDescription`."""
    function: str

    @property
    def block(self) -> Any:
        """Operations and outputs."""
        function = self.program.functions[self.function]
        forms = list(function.block_specializations.values())
        if len(forms) != 1:
            raise BundleError(
                f"the function {self.function[:64]!a} has {len(forms)} forms, want one; convert it "
                "for one system"
            )
        return forms[0]


class Package:
    """An opened package; weights are not read."""

    def __init__(self, path: Path, model: Any, weights: Path) -> None:
        """Use `open_package`."""
        self.path = path
        self._model = model
        self._weights = weights
        self._blobs: dict[str, BlobFile] = {}

    @property
    def specification_version(self) -> int:
        """Version of the format: 8 is iOS 17, 9 is iOS 18."""
        return self._model.specificationVersion

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the package says of itself."""
        return dict(self._model.description.metadata.userDefined)

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions; the default comes first."""
        if self._model.WhichOneof("Type") != "mlProgram":
            return ("main",)
        names = list(self._model.mlProgram.functions)
        default = self._model.description.defaultFunctionName or "main"
        return tuple(sorted(names, key=lambda name: (name != default, name)))

    def sources(self, function: str | None = None) -> list[Source]:
        """Return the programs of a function, in the order in which they run.

        Args:
            function: None for the default.

        Raises:
            BundleError: If there is no such function, or no program.
        """
        kind = self._model.WhichOneof("Type")
        if kind == "pipeline":
            models = list(self._model.pipeline.models)
            if not 0 < len(models) <= MAX_PROGRAMS:
                raise self._refuse(f"is a pipeline of {len(models)} models")
            return [self._source(model, None) for model in models]
        return [self._source(self._model, function)]

    def inputs(self, function: str | None = None) -> tuple[Tensor, ...]:
        """Return what a function takes."""
        return self._border("input", function)

    def outputs(self, function: str | None = None) -> tuple[Tensor, ...]:
        """Return what a function gives."""
        return self._border("output", function)

    def operations(self, function: str | None = None) -> Iterator[Operation]:
        """Yield the operations of a function in order, constants left out."""
        for source in self.sources(function):
            types = {x.name: tensor_type(x.type) for x in _inputs_of(source)}
            constants: dict[str, Any] = {}
            for operation in source.block.operations:
                types |= {x.name: tensor_type(x.type) for x in operation.outputs}
                if operation.type.startswith("const"):
                    constants[operation.outputs[0].name] = _small_value(operation)
                    continue
                yield _describe(operation, types, constants)

    def blob(self, name: str) -> BlobFile:
        """Return a file of weights by the name that a description has for it.

        Raises:
            BundleError: If the name leaves the package, or the file is missing or damaged.
        """
        if name not in self._blobs:
            match = _BLOB.fullmatch(name)
            if match is None:
                raise self._refuse(f"names the file of weights {name[:80]!a}")
            self._blobs[name] = BlobFile(_locate(self._weights, match[1], self.path.name))
        return self._blobs[name]

    def _source(self, model: Any, function: str | None) -> Source:
        if model.WhichOneof("Type") != "mlProgram":
            raise self._refuse(f"holds a model of the kind {model.WhichOneof('Type')}")
        described = {item.name: item for item in model.description.functions}
        name = function or model.description.defaultFunctionName or "main"
        if name not in model.mlProgram.functions:
            known = ", ".join(sorted(model.mlProgram.functions))
            raise self._refuse(f"has no function {name[:64]!a}; it has {known[:200]}")
        description = described.get(name, model.description)
        return Source(program=model.mlProgram, description=description, function=name)

    def _border(self, side: str, function: str | None) -> tuple[Tensor, ...]:
        description = self._model.description
        if self._model.WhichOneof("Type") == "mlProgram":
            description = self.sources(function)[0].description
        return tuple(self._feature(item) for item in getattr(description, side))

    def _feature(self, item: Any) -> Tensor:
        array = item.type.multiArrayType
        if item.type.WhichOneof("Type") != "multiArrayType" or array.dataType not in _DTYPES:
            raise self._refuse(f"has the feature {item.name[:64]!a}, which is no tensor")
        return Tensor(name=item.name, shape=tuple(array.shape), dtype=_DTYPES[array.dataType])

    def _refuse(self, what: str) -> BundleError:
        return BundleError(f"{self.path.name} {what}; export the package again")


def open_package(path: Path) -> Package:
    """Open a package and check its structure.

    Args:
        path: The .mlpackage folder.

    Raises:
        TargetUnavailableError: If coremltools is missing, which has the format of descriptions.
        BundleError: If the folder is damaged, unsafe, or holds no model.
    """
    root = _read_root(path)
    specification = _locate(path / "Data", root, path.name)
    if (size := specification.stat().st_size) > MAX_MODEL_BYTES:
        raise BundleError(
            f"{path.name} has a description of {size} bytes, allowed: {MAX_MODEL_BYTES}; "
            "export the package again"
        )
    from google.protobuf.message import DecodeError

    model: Any = load_protocol()[0].Model()
    try:
        model.ParseFromString(specification.read_bytes())
    except (DecodeError, RecursionError) as exc:
        raise BundleError(
            f"{path.name} has a damaged description; export the package again"
        ) from exc
    return Package(path, model, specification.parent / "weights")


def _read_root(path: Path) -> str:
    """Return where the model is, below `Data`."""
    manifest = _locate(path, "Manifest.json", path.name)
    problem = BundleError(f"{path.name} has a damaged Manifest.json; export the package again")
    if manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise problem
    try:
        content = json.loads(manifest.read_bytes())
        root = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise problem from exc
    if not isinstance(root, str):
        raise problem
    return root


def _locate(folder: Path, relative: str, package: str) -> Path:
    """Return a file of a package.

    Raises:
        BundleError: If its place is outside the folder, or no regular file.
    """
    parts = PurePosixPath(relative).parts
    if not parts or relative.startswith("/") or any(x in ("..", ".") for x in parts):
        raise BundleError(f"{package} names the file {relative[:80]!a} outside; do not use it")
    if "\\" in relative or "\0" in relative or ":" in relative:
        raise BundleError(f"{package} names the file {relative[:80]!a}; do not use it")
    found = folder
    for part in parts:
        found = found / part
        if found.is_symlink():
            raise BundleError(f"{package} has a link at {relative[:80]}; copy it without links")
    if not found.is_file():
        raise BundleError(f"{package} lacks {relative[:80]}; export the package again")
    return found


def _inputs_of(source: Source) -> Sequence[Any]:
    return source.program.functions[source.function].inputs


def _small_value(operation: Any) -> Any:
    """Return a constant that is in the description; None for what a file holds."""
    value = operation.attributes["val"] if "val" in operation.attributes else None  # noqa: SIM401 - a map of messages makes what it is asked for
    if value is None or value.WhichOneof("value") != "immediateValue":
        return None
    return read_immediate(value)


def _describe(
    operation: Any, types: Mapping[str, TensorType], constants: Mapping[str, Any]
) -> Operation:
    inputs: dict[str, tuple[Tensor, ...]] = {}
    small: dict[str, Any] = {}
    for parameter, argument in operation.inputs.items():
        found: list[Tensor] = []
        for item in argument.arguments:
            if item.WhichOneof("binding") == "value":
                kind, name, constant = tensor_type(item.value.type), "", True
                if item.value.WhichOneof("value") == "immediateValue":
                    small[parameter] = read_immediate(item.value)
            else:
                name, constant = item.name, item.name in constants
                kind = types.get(name, TensorType(dtype="unknown", shape=()))
                if constants.get(name) is not None:
                    small[parameter] = constants[name]
            found.append(Tensor(name=name, shape=kind.shape, dtype=kind.dtype, constant=constant))
        inputs[parameter] = tuple(found)
    return Operation(
        type=operation.type,
        name=_name_of(operation),
        inputs=inputs,
        outputs=tuple(
            Tensor(name=x.name, shape=types[x.name].shape, dtype=types[x.name].dtype)
            for x in operation.outputs
        ),
        constants=small,
    )


def _name_of(operation: Any) -> str:
    return operation.outputs[0].name if operation.outputs else ""
