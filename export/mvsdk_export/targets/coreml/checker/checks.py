"""What a program uses that the checker does not know, found before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mvsdk._text import quoted
from mvsdk_export.errors import UnsupportedOpError
from mvsdk_export.targets.coreml.checker.binding import parameters_of
from mvsdk_export.targets.coreml.checker.operations import CONSTEXPR, OPERATIONS

_SHOWN = 20
"""Most kinds of operations that a message names."""


def check_operations(blocks: Sequence[Any]) -> None:
    """Refuse operations, parameters and modes that are not known: never compute without them.

    Args:
        blocks: `MIL_pb2.Block` of every program that will run.

    Raises:
        UnsupportedOpError: Names every kind that is not known, and how many there are of each.
    """
    unknown: Counter[str] = Counter()
    for block in blocks:
        texts = _texts(block)
        for operation in _walk(block):
            unknown.update(_unknown_in(operation, texts))
    if unknown:
        listed = [f"{name} ({count})" for name, count in sorted(unknown.items())]
        more = f" and {len(listed) - _SHOWN} more kinds" if len(listed) > _SHOWN else ""
        raise UnsupportedOpError(
            f"the checker does not know the operations {', '.join(listed[:_SHOWN])}{more}; "
            "convert the network to others, or verify the package on a Mac"
        )


def _walk(block: Any) -> Iterator[Any]:
    """Yield operations, those of inner blocks (branches, loops) too."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _walk(inner)


def _unknown_in(operation: Any, texts: Mapping[str, str]) -> list[str]:
    kind = operation.type
    if kind == "const":
        return []
    function = OPERATIONS.get(kind) or CONSTEXPR.get(kind)
    if function is None:
        return [kind[:64]]
    known = parameters_of(function)
    given = {*operation.inputs, *(_attributes(operation) if kind in CONSTEXPR else ())}
    found = [f"{kind} with the parameter {name[:64]}" for name in sorted(given - known.keys())]
    for name, parameter in known.items():
        if not parameter.choices or name not in given:
            continue
        text = _text_of(operation, name, texts)
        if text not in parameter.choices:
            shown = "computed" if text is None else f"{quoted(text)}"
            found.append(f"{kind} with {name} {shown}")
    return found


def _attributes(operation: Any) -> list[str]:
    return [name for name in operation.attributes if name != "name"]


def _text_of(operation: Any, name: str, texts: Mapping[str, str]) -> str | None:
    """Return the text that a parameter is given; None if it is no constant text."""
    if name not in operation.inputs:
        return _text_in(operation.attributes[name])
    arguments = operation.inputs[name].arguments
    if len(arguments) != 1:
        return None
    if arguments[0].WhichOneof("binding") == "value":
        return _text_in(arguments[0].value)
    return texts.get(arguments[0].name)


def _texts(block: Any) -> dict[str, str]:
    """Return the constant texts of a program by name."""
    found: dict[str, str] = {}
    for operation in _walk(block):
        if operation.type == "const" and operation.outputs and "val" in operation.attributes:
            text = _text_in(operation.attributes["val"])
            if text is not None:
                found[operation.outputs[0].name] = text
    return found


def _text_in(value: Any) -> str | None:
    texts = value.immediateValue.tensor.strings.values
    return texts[0] if len(texts) == 1 else None
