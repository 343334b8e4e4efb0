"""Constants of a program: read, and decoded where they are compressed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from mvsdk._text import quoted
from mvsdk.errors import BundleError
from mvsdk_export.targets.coreml.checker.binding import as_number, parameters_of
from mvsdk_export.targets.coreml.checker.folder import PackageFolder
from mvsdk_export.targets.coreml.checker.operations import CONSTEXPR
from mvsdk_export.targets.coreml.checker.values import (
    ANY,
    Constant,
    TensorType,
    array_type,
    read_immediate,
    read_type,
)


class Constants:
    """Constants that were read so far, by name."""

    def __init__(self, folder: PackageFolder, *, taken: Collection[str] = ()) -> None:
        """Begin with none.

        Args:
            folder: Where files of weights are.
            taken: Names that no constant may have: those of the program's inputs.
        """
        self._folder = folder
        self._taken = frozenset(taken)
        self.values: dict[str, Constant] = {}
        self.types: dict[str, TensorType] = {}

    def add(self, operation: Any) -> None:
        """Read or decode a `const` or `constexpr_*` operation.

        Raises:
            BundleError: If it is damaged, or not of its type.
        """
        try:
            made = self._make(operation)
            for output, value in zip(operation.outputs, made, strict=True):
                self._keep(output, value)
        except BundleError:
            raise
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as exc:
            name = operation.outputs[0].name if operation.outputs else ""
            raise self._folder.damaged(
                f"has a damaged constant {quoted(name)} ({operation.type[:64]}): {exc}"
            ) from exc

    def read(self, value: Any) -> Constant:
        """Return what a `MIL_pb2.Value` is, from the description or a file of weights.

        Raises:
            BundleError: If it is damaged, or not of its type.
        """
        held = value.WhichOneof("value")
        if held == "immediateValue":
            return read_immediate(value)
        if held != "blobFileValue":
            raise self._folder.damaged("has a constant without a value")
        kind, place = read_type(value.type), value.blobFileValue
        if ANY in kind.shape or not kind.is_tensor:
            raise self._folder.damaged(
                f"has a constant in {quoted(place.fileName)} of no fixed size"
            )
        return self._folder.blob(place.fileName).read(place.offset, kind.dtype, kind.shape)

    def keep_only(self, names: Collection[str]) -> None:
        """Forget all but some constants: those that only other constants were made of."""
        for name in self.values.keys() - set(names):
            del self.values[name]

    def _make(self, operation: Any) -> tuple[Constant, ...]:
        if operation.type == "const":
            return (self.read(operation.attributes["val"]),)
        function = CONSTEXPR[operation.type]
        given = dict(self._given(operation))
        filled: dict[str, Any] = {}
        for name, parameter in parameters_of(function).items():
            if name in given:
                held = parameter.kind in ("array", "text")
                filled[name] = given[name] if held else as_number(parameter.kind, given[name])
                if isinstance(filled[name], str) != (parameter.kind == "text"):
                    raise TypeError(f"{name} is given another kind of value")
            elif parameter.required:
                raise KeyError(f"the parameter {name} is missing")
        made = function(**filled)
        return made if isinstance(made, tuple) else (made,)

    def _given(self, operation: Any) -> Iterator[tuple[str, Constant]]:
        for name, value in operation.attributes.items():
            if name != "name":
                yield name, self.read(value)
        for name, argument in operation.inputs.items():
            (item,) = argument.arguments
            if item.WhichOneof("binding") == "value":
                yield name, self.read(item.value)
            else:
                yield name, self.values[item.name]

    def _keep(self, output: Any, value: Constant) -> None:
        kind = read_type(output.type)
        if output.name in self.values or output.name in self._taken:
            raise ValueError("there is another of this name")
        if not isinstance(value, str):
            held = array_type(kind.dtype)
            if not kind.fits(value.shape) or value.dtype.newbyteorder("=") != held:
                raise ValueError(
                    f"it is {value.dtype} {value.shape[:8]}, its type says {kind.dtype} "
                    f"{kind.shape[:8]}"
                )
        elif kind.dtype != "string":
            raise ValueError(f"it is a text, its type says {kind.dtype}")
        self.values[output.name] = value
        self.types[output.name] = kind
