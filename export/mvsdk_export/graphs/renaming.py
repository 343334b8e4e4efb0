"""Renaming of values in ONNX graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx


def rename_values(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Rename what nodes read and make, also inside their branches and loops.

    Args:
        nodes: Changed in place.
        names: Old name -> new name.
    """
    for node in nodes:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
        for attribute in node.attribute:
            for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                rename_values(graph.node, names)
                for value in graph.output:
                    value.name = names.get(value.name, value.name)
