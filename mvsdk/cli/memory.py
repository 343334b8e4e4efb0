"""A table of the memory that an NPU's compiler says its graphs take, for `inspect` and `export`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mvsdk.cli.output import format_bytes, table
from mvsdk.manifest.memory import read_memory

if TYPE_CHECKING:
    from mvsdk.manifest import Manifest

_HEADINGS = (
    "component",
    "variant",
    "graphs",
    "VTCM",
    "spilled",
    "DDR tensors",
    "operators",
    "constants",
    "in and out",
)


def memory_lines(manifest: Manifest) -> list[str]:
    """Return an empty line, what the table is, and the table; nothing where nothing is known.

    VTCM is that of the graph that asks for most; other sizes are of all graphs of a variant
    together. `-`: the compiler does not tell.
    """
    rows = [
        [
            component,
            variant,
            str(len(graphs)),
            format_bytes(max(graph.vtcm_bytes for graph in graphs)),
            _total(graph.spill_fill_bytes for graph in graphs),
            _total(graph.ddr_tensor_bytes for graph in graphs),
            _total(graph.operator_bytes for graph in graphs),
            _total(graph.constant_bytes for graph in graphs),
            _total(graph.io_bytes for graph in graphs),
        ]
        for (component, variant), graphs in read_memory(manifest).items()
    ]
    if not rows:
        return []
    said = "memory on the NPU, as the compiler says; spilled: goes through main memory in every run"
    return ["", said, table(_HEADINGS, rows)]


def _total(sizes: Iterable[int | None]) -> str:
    known = list(sizes)
    return "-" if None in known else format_bytes(sum(size or 0 for size in known))
