"""Saved Core AI assets: an `.aimodel` folder, what it says of itself, and what is in it.

The folder holds `main.mlirb` (the program with its weights, in MLIR's bytecode), `main.hash` (its
SHA-256) and `metadata.json`. Equal programs give equal bytes: what Apple's packages draw by lot or
take from the clock is replaced.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvsdk.manifest import Delegation, DType, NonDelegated, TensorSpec
from mvsdk_export.errors import UnsupportedOpError
from mvsdk_export.quantize.mixed import Assignment
from mvsdk_export.targets.coreai.tools import import_coreai

MOST_AXES = 5
"""Of a tensor on the Neural Engine."""
ENGINE_TYPES = ("f16", "si8", "si16")
"""Types that the Neural Engine computes in."""
SOURCE = "apple-rules"
"""Tag of the source of both in docs/neural_engine.md."""

_DTYPES: Mapping[str, DType] = {
    "f32": "float32",
    "f16": "float16",
    "si32": "int32",
    "ui8": "uint8",
    "si8": "int8",
    "si16": "int16",
    "ui16": "uint16",
}
_FIELDS = ("author", "license")
_METADATA = "metadata.json"
_PREFIXES = ("coreai.decomposable.", "coreai.")
_SYMBOL = re.compile(r"@([\w.]+)")
_NOT_COUNTED = ("constant", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetReport:
    """A function of an asset."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    """Operator -> how many; a composite counts as one, under its own name."""
    largest_rank: int
    """Of what operators give; what is inside a composite is its own business."""
    against_rules: tuple[NonDelegated, ...]
    """Operators that break a documented rule of the Neural Engine. Others may stay outside too."""
    assignment: Assignment | None = None
    """How the bits of weights were chosen; None where all have the same."""

    @property
    def delegation(self) -> Delegation | None:
        """What the Neural Engine may take, by the rules there are.

        Apple documents which types and ranks it takes of a Core AI program, but not which
        operators, and no compiler for it runs outside Apple's systems: it may take fewer. None if
        it takes nothing, as of float32.
        """
        taken = sum(self.operators.values()) - len(self.against_rules)
        if not taken:
            return None
        return Delegation(
            delegated=taken,
            non_delegated=self.against_rules,
            basis="rules",
        )


def save_asset(program: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a program as an `.aimodel` folder; an existing one is replaced.

    Args:
        program: Core AI's `AIProgram`; names of its private graphs are changed.
        path: The folder, whose name ends with `.aimodel`.
        metadata: `author` and `license` go to the fields of these names, the rest is kept as it is.
    """
    said = import_coreai("coreai.runtime").AIModelAssetMetadata()
    for key, value in metadata.items():
        if key in _FIELDS:
            setattr(said, key, value)
        else:
            said.set_custom(key, value)
    _name_graphs_(program)
    program.save_asset(path, said)
    document = json.loads((path / _METADATA).read_text(encoding="utf-8"))
    document.pop("creationDate", None)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (path / _METADATA).write_text(text, encoding="utf-8")


def _name_graphs_(program: Any) -> None:
    """Number private graphs, whose names end with letters drawn by lot, in place."""
    table = import_coreai("coreai._compiler.ir").SymbolTable
    root = _root(program).operation
    for index, graph in enumerate(x for x in _graphs(program) if _composite(x)):
        old = table.get_symbol_name(graph.operation).value
        new = f"{_composite(graph)}_{index}"
        table.replace_all_symbol_uses(old, new, root)
        table.set_symbol_name(graph.operation, new)


def read_reports(program: Any) -> dict[str, AssetReport]:
    """Return what is in a program.

    Args:
        program: Core AI's `AIProgram`.

    Returns:
        Function -> report.
    """
    composites = {_name(graph): _composite(graph) for graph in _graphs(program)}
    return {
        _name(graph): _report(graph, composites)
        for graph in _graphs(program)
        if not _composite(graph)
    }


def _report(graph: Any, composites: Mapping[str, str]) -> AssetReport:
    operators: Counter[str] = Counter()
    ranks = [0]
    outside: list[NonDelegated] = []
    kind = graph.type
    for operation in graph.regions[0].blocks[0].operations:
        name = _operator(operation, composites)
        if name in _NOT_COUNTED:
            continue
        operators[name] += 1
        given = list(_tensors(result.type for result in operation.operation.results))
        ranks += [len(shape) for shape, _ in given]
        reason = next(filter(None, (_broken_rule(*item) for item in given)), None)
        if reason:
            outside.append(NonDelegated(operator=name, name="", reason=f"{reason} [{SOURCE}]"))
    return AssetReport(
        inputs=_specs(graph.attributes["arg_attrs"], kind.inputs),
        outputs=_specs(graph.attributes["res_attrs"], kind.results),
        operators=dict(sorted(operators.items())),
        largest_rank=max(ranks),
        against_rules=tuple(outside),
    )


def _broken_rule(shape: tuple[int, ...], dtype: str) -> str | None:
    if len(shape) > MOST_AXES:
        return f"{len(shape)} axes, the Neural Engine takes {MOST_AXES}"
    if dtype not in ENGINE_TYPES:
        known = _DTYPES.get(dtype, dtype)
        return f"{known}, the Neural Engine takes float16, int8 and int16"
    return None


def _operator(operation: Any, composites: Mapping[str, str]) -> str:
    """Return the name of an operation without its dialect; that of a composite, if it calls one."""
    name = str(operation.operation.name)
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if name == "invoke":
        # Such as #param.constant<@layer_norm_3> : !param.symbol.
        found = _SYMBOL.search(str(operation.attributes["callee"]))
        return (composites.get(found[1]) if found else None) or name
    return name


def _composite(graph: Any) -> str:
    """Return the name of the composite that a graph is the body of; empty if it is a function."""
    if "composite_decl" not in graph.attributes:
        return ""
    # Such as #coreai.composite_declaration<"layer_norm" = {...}>.
    return str(graph.attributes["composite_decl"]).split('"')[1]


def _specs(attributes: Any, kinds: Any) -> tuple[TensorSpec, ...]:
    specs: list[TensorSpec] = []
    for said, (shape, dtype) in zip(attributes, _tensors(kinds), strict=True):
        name = said["coreai.name"].value
        if dtype not in _DTYPES:
            raise UnsupportedOpError(
                f"{name} crosses the border as {dtype}; a bundle knows {', '.join(_DTYPES)}"
            )
        specs.append(TensorSpec(name=name, shape=shape, dtype=_DTYPES[dtype]))
    return tuple(specs)


def _tensors(kinds: Any) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield shape and element type of those types that are tensors."""
    for kind in kinds:
        if hasattr(kind, "shape"):
            yield tuple(kind.shape), str(kind.element_type)


def _name(graph: Any) -> str:
    return str(graph.attributes["sym_name"].value)


def _graphs(program: Any) -> list[Any]:
    return list(_root(program).body.operations)


def _root(program: Any) -> Any:
    # Not public: of what is, only text for people says what is in a program.
    return program._module._mlir_module
