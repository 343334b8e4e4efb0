"""Joining the parts of a cut model (split.py) again, after each was changed alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.onnx import save_model
from mvsdk_export.graphs.renaming import rename_values


def join_models(parts: Sequence[Path], target: Path, *, outputs: Sequence[str]) -> None:
    """Join ONNX models that run one after the other into one.

    What one part gives and a later one takes becomes a value inside the model. Other names inside
    get the number of their part in front: tools give the same ones in each.

    Args:
        parts: Models of the parts, in the order in which they run.
        target: Model to write; large weights come beside it.
        outputs: Outputs of the whole.

    Raises:
        ExportError: If a value is given in another type or shape than it is taken in.
    """
    whole = helper.make_model(helper.make_graph([], "joined", [], []), opset_imports=[])
    graph = whole.graph
    opsets: dict[str, int] = {}
    taken: dict[str, onnx.ValueInfoProto] = {}
    made: dict[str, onnx.ValueInfoProto] = {}
    for index, path in enumerate(parts):
        part = onnx.load(path)
        whole.ir_version = part.ir_version
        for opset in part.opset_import:
            opsets[opset.domain] = max(opset.version, opsets.get(opset.domain, 0))
        for value in part.graph.input:
            check_signature(
                made.get(value.name) or taken.setdefault(value.name, value), value, path
            )
        made |= {value.name: value for value in part.graph.output}
        _put_in_front(part.graph, f"part_{index}/")
        graph.node.extend(part.graph.node)
        graph.initializer.extend(part.graph.initializer)
        graph.value_info.extend(part.graph.value_info)
    graph.input.extend(taken.values())
    graph.output.extend(made[name] for name in outputs)
    graph.value_info.extend(value for name, value in made.items() if name not in outputs)
    whole.opset_import.extend(helper.make_opsetid(*item) for item in opsets.items())
    save_model(whole, target)


def check_signature(made: onnx.ValueInfoProto, taken: onnx.ValueInfoProto, part: Path) -> None:
    """Check that a part takes a value as an earlier one gives or takes it.

    Raises:
        ExportError: If type or shape differ.
    """
    if made.type != taken.type:
        found, wanted = (
            f"{onnx.TensorProto.DataType.Name(x.type.tensor_type.elem_type).lower()} "
            f"{[size.dim_value for size in x.type.tensor_type.shape.dim]}"
            for x in (made, taken)
        )
        raise ExportError(
            f"{part.name} cannot be joined: it takes {taken.name!r} as {wanted}, an earlier part "
            f"gives {found}; export again: the parts must agree on what crosses"
        )


def _put_in_front(graph: onnx.GraphProto, prefix: str) -> None:
    """Put a text in front of every name that is no border of a graph."""
    borders = {value.name for value in [*graph.input, *graph.output]}
    inner = [
        *(tensor.name for tensor in graph.initializer),
        *(name for node in graph.node for name in node.output if name),
    ]
    names = {name: prefix + name for name in inner if name not in borders}
    rename_values(graph.node, names)
    for node in graph.node:
        node.name = prefix + node.name
    for tensor in graph.initializer:
        tensor.name = prefix + tensor.name
    for value in list(graph.value_info):
        if value.name in names:
            value.name = names[value.name]
        else:  # of a border, or of what is no longer there
            graph.value_info.remove(value)
