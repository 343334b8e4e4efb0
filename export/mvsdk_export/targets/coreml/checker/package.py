"""What a saved .mlpackage says of itself: functions, operations, types and metadata."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvsdk._text import quoted
from mvsdk.errors import BundleError
from mvsdk_export.targets.coreml.checker.folder import PackageFolder
from mvsdk_export.targets.coreml.checker.values import (
    Constant,
    TensorType,
    read_immediate,
    read_type,
)

MAX_MODELS = 64
"""Most models of a pipeline."""

_SMALL = 64
"""Elements of a constant up to which a description of an operation shows its value."""

_FEATURE_TYPES = {
    65552: "float16",
    65568: "float32",
    65600: "float64",
    131080: "int8",
    131104: "int32",
}
"""`ArrayFeatureType.ArrayDataType`, by number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output of a function, or of an operation in it."""

    name: str
    """Empty for a constant that an operation holds itself."""
    shape: tuple[int, ...]
    """-1 where the program does not fix a size."""
    dtype: str
    """In lower case, such as float16, int32, bool or uint4."""
    constant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a function; constants, compressed ones too, are none."""

    type: str
    name: str
    inputs: Mapping[str, tuple[Tensor, ...]]
    """Parameter -> what it is given: several for what takes several, such as `concat`."""
    outputs: tuple[Tensor, ...]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    """Parameter -> value, of texts and of small arrays that the description holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of a package."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One program that runs as a part of a function: messages of the description."""

    inputs: Mapping[str, TensorType]
    block: Any
    """`MIL_pb2.Block`."""
    described: Any
    """`ModelDescription` or `FunctionDescription`: what an app sees at the border."""


class Package:
    """An opened package."""

    def __init__(self, folder: PackageFolder, model: Any) -> None:
        """Use `open_package`."""
        self.folder = folder
        self._model = model
        self._kind = model.WhichOneof("Type")
        if self._kind == "pipeline":
            self._programs = [self._program(item) for item in model.pipeline.models]
            if not 0 < len(self._programs) <= MAX_MODELS:
                raise folder.damaged(f"is a pipeline of {len(self._programs)} models")
        else:
            self._programs = [self._program(model)]

    @property
    def metadata(self) -> Mapping[str, str]:
        """What its maker notes: keys and texts of the package's own."""
        return dict(self._model.description.metadata.userDefined)

    @property
    def default_function(self) -> str:
        """Name of the function that runs where none is named."""
        return self._model.description.defaultFunctionName or "main"

    @functools.cached_property
    def functions(self) -> Mapping[str, Function]:
        """Functions by name, the default first. A pipeline has one.

        Raises:
            BundleError: If a function's border is damaged.
        """
        if self._kind == "pipeline":
            names = [self.default_function]
        else:
            names = sorted(self._programs[0].functions)
            if self.default_function not in names:
                raise self.folder.damaged(
                    f"has no default function {quoted(self.default_function)}; it has "
                    f"{', '.join(names)[:200] or 'none'}"
                )
            names.sort(key=lambda name: name != self.default_function)
        return {name: self._function(name) for name in names}

    def sources(self, function: str | None = None) -> list[Source]:
        """Return the programs that a function runs, in their order.

        Args:
            function: Of a package with several; None for the default.

        Raises:
            BundleError: If there is no such function, or it is damaged.
        """
        if self._kind == "pipeline":
            if function not in (None, self.default_function):
                raise self._no_function(function, [self.default_function])
            models = self._model.pipeline.models
            return [
                self._source(program, model.description, model.description.defaultFunctionName)
                for program, model in zip(self._programs, models, strict=True)
            ]
        return [
            self._source(
                self._programs[0], self._model.description, function or self.default_function
            )
        ]

    def operations(self, function: str | None = None) -> Iterator[Operation]:
        """Yield what a function does, operation by operation.

        Args:
            function: Of a package with several; None for the default.

        Raises:
            BundleError: If there is no such function, or it is damaged.
        """
        for source in self.sources(function):
            types = dict(source.inputs)
            constants: dict[str, Constant | None] = {}
            for item in source.block.operations:
                types |= {output.name: read_type(output.type) for output in item.outputs}
                if is_constant(item):
                    constants |= dict.fromkeys((output.name for output in item.outputs), None)
                    if (value := _small_value(item)) is not None:
                        constants[item.outputs[0].name] = value
                else:
                    yield _describe(item, types, constants)

    def _program(self, model: Any) -> Any:
        kind = model.WhichOneof("Type")
        if kind != "mlProgram":
            raise self.folder.damaged(f"holds a model of the kind {kind}, expected mlProgram")
        return model.mlProgram

    def _source(self, program: Any, description: Any, function: str) -> Source:
        name = function or "main"
        if name not in program.functions:
            raise self._no_function(name, sorted(program.functions))
        body = program.functions[name]
        blocks = body.block_specializations
        if body.opset not in blocks:
            raise self.folder.damaged(
                f"has no operations for {quoted(body.opset)} in {quoted(name)}"
            )
        described = {item.name: item for item in description.functions}
        return Source(
            inputs={item.name: read_type(item.type) for item in body.inputs},
            block=blocks[body.opset],
            described=described.get(name, description),
        )

    def _function(self, name: str) -> Function:
        sources = self.sources(name)
        whole = self._kind == "pipeline"
        described = self._model.description if whole else sources[0].described
        taken: dict[str, TensorType] = {}
        given: dict[str, TensorType] = {}
        for source in sources:
            taken = {**source.inputs, **taken}  # the first that takes it
            given |= _outputs_of(source)  # the last that gives it
        return Function(
            name=name,
            inputs=tuple(self._feature(item, taken) for item in described.input),
            outputs=tuple(self._feature(item, given) for item in described.output),
        )

    def _feature(self, item: Any, types: Mapping[str, TensorType]) -> Tensor:
        """Return an input or output, where an app and the program are told the same."""
        kind = types.get(item.name)
        if kind is None:
            raise self.folder.damaged(f"has no value {quoted(item.name)}, which its border names")
        form = item.type.WhichOneof("Type")
        if form != "multiArrayType":
            raise BundleError(
                f"the package {self.folder.name} has {quoted(item.name)} of the kind {form} at its "
                "border; the checker takes tensors only"
            )
        array = item.type.multiArrayType
        dtype = _FEATURE_TYPES.get(array.dataType, f"type {array.dataType}")
        if dtype != kind.dtype or (array.shape and not kind.fits(tuple(array.shape))):
            raise self.folder.damaged(
                f"says {dtype} {tuple(array.shape)[:8]} of {quoted(item.name)}, its program "
                f"{kind.dtype} {kind.shape[:8]}"
            )
        return Tensor(name=item.name, shape=kind.shape, dtype=kind.dtype)

    def _no_function(self, name: str | None, known: Sequence[str]) -> BundleError:
        return BundleError(
            f"the package {self.folder.name} has no function {quoted(name or '')}; it has "
            f"{', '.join(known)[:200] or 'none'}"
        )


def open_package(path: Path) -> Package:
    """Open a package and check its structure; weights are not read.

    Args:
        path: The .mlpackage folder.

    Raises:
        TargetUnavailableError: If coremltools is missing, which has the format's messages.
        BundleError: If the folder is damaged or unsafe, or holds no ML program.
    """
    folder = PackageFolder(path)
    return Package(folder, folder.read_model())


def is_constant(operation: Any) -> bool:
    """Return whether an operation stands for a constant, compressed or not."""
    return operation.type == "const" or operation.type.startswith("constexpr_")


def _outputs_of(source: Source) -> dict[str, TensorType]:
    """Return the types of what a program gives, without reading all of it."""
    wanted = set(source.block.outputs)
    found = {name: kind for name, kind in source.inputs.items() if name in wanted}
    for operation in reversed(source.block.operations):
        for output in operation.outputs:
            if output.name in wanted:
                found[output.name] = read_type(output.type)
        if len(found) == len(wanted):
            break
    return found


def _small_value(operation: Any) -> Constant | None:
    """Return the value of a small constant that the description holds."""
    if operation.type != "const" or "val" not in operation.attributes:
        return None
    value = operation.attributes["val"]
    if value.WhichOneof("value") != "immediateValue" or not operation.outputs:
        return None
    return _shown(value)


def _shown(value: Any) -> Constant | None:
    if value.immediateValue.WhichOneof("value") != "tensor":
        return None
    found = read_immediate(value)
    return found if isinstance(found, str) or found.size <= _SMALL else None


def _describe(
    operation: Any, types: Mapping[str, TensorType], constants: Mapping[str, Constant | None]
) -> Operation:
    inputs: dict[str, tuple[Tensor, ...]] = {}
    values: dict[str, Constant] = {}
    for parameter, argument in operation.inputs.items():
        found: list[Tensor] = []
        for item in argument.arguments:
            if item.WhichOneof("binding") == "value":
                name, kind, value = "", read_type(item.value.type), None
                if item.value.WhichOneof("value") == "immediateValue":
                    value = _shown(item.value)
            else:
                name, value = item.name, constants.get(item.name)
                kind = types.get(name, TensorType(dtype="nothing", shape=()))
            constant = not name or name in constants
            found.append(Tensor(name=name, shape=kind.shape, dtype=kind.dtype, constant=constant))
            if value is not None and len(argument.arguments) == 1:
                values[parameter] = value
        inputs[parameter] = tuple(found)
    outputs = tuple(
        Tensor(name=item.name, shape=types[item.name].shape, dtype=types[item.name].dtype)
        for item in operation.outputs
    )
    name = outputs[0].name if outputs else ""
    return Operation(
        type=operation.type, name=name, inputs=inputs, outputs=outputs, constants=values
    )
