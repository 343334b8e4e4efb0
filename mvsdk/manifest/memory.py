"""What the compiler of an NPU says of the memory that its graphs take: `x-memory` of a manifest.

It is for people and tools, and no clip depends on it (docs/bundle_format.md, R3). So what is not
understood there is as if it were not said, and no bundle is refused for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, cast

from mvsdk._json import JsonValue

if TYPE_CHECKING:
    from mvsdk.manifest import Manifest

MEMORY = "x-memory"
"""Key of a manifest: component -> variant id -> a list with an object for each compiled graph."""
_MOST = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMemory:
    """Memory of one graph that Qualcomm's HTP compiler made, in bytes.

    Field names are the keys below `x-memory`. A number is None where the compiler does not tell.

    Reference:
        `QnnHtpSystemContext_GraphBlobInfoV1_t` and `...V2_t` of QNN's QnnHtpSystemContext.h, whose
        names are given below.
    """

    spill_fill_bytes: int
    """Buffer in main memory for activations that the on-chip memory has no room for while others
    are computed (`spillFillBufferSize`). Each is written there and read again in every run."""
    vtcm_bytes: int
    """On-chip memory that the graph was planned for (`vtcmSize`), what a phone has to lend it."""
    operator_bytes: int | None
    """What the operators are told: run lists, tiles, addresses (`opDataSize`)."""
    constant_bytes: int | None
    """Weights and other constants (`constSize`)."""
    ddr_tensor_bytes: int | None
    """Activations that live in main memory for good (`ddrTensorSize`), besides the buffer above."""
    io_bytes: int | None
    """Inputs and outputs (`ioTensorSize`)."""
    shared_weight_bytes: int | None
    """Weights that several graphs share (`sharedWeightsSize`)."""


def read_memory(manifest: Manifest) -> dict[tuple[str, str], tuple[GraphMemory, ...]]:
    """Return what a manifest says of the memory of its compiled graphs.

    Args:
        manifest: Of any bundle.

    Returns:
        (component, variant id) -> its graphs, for variants of the manifest of which all is
        understood; the others are left out.
    """
    said = manifest.extensions.get(MEMORY)
    if not isinstance(said, dict):
        return {}
    found: dict[tuple[str, str], tuple[GraphMemory, ...]] = {}
    for component, part in manifest.components.items():
        entries = said.get(component)
        if not isinstance(entries, dict):
            continue
        for variant in part.variants:
            if graphs := _parse(entries.get(variant.id)):
                found[component, variant.id] = graphs
    return found


def memory_to_json(
    memory: Mapping[tuple[str, str], Sequence[GraphMemory]],
) -> dict[str, JsonValue]:
    """Return the value of `x-memory`: what `read_memory` reads.

    Args:
        memory: (component, variant id) -> its graphs.
    """
    said: dict[str, dict[str, JsonValue]] = {}
    for (component, variant), graphs in memory.items():
        said.setdefault(component, {})[variant] = [
            cast("dict[str, JsonValue]", asdict(graph)) for graph in graphs
        ]
    return cast("dict[str, JsonValue]", said)


def _parse(value: JsonValue) -> tuple[GraphMemory, ...] | None:
    """Return the graphs of a variant; None where anything is not what `memory_to_json` writes."""
    if not isinstance(value, list):
        return None
    names = [item.name for item in fields(GraphMemory)]
    graphs: list[GraphMemory] = []
    for item in value:
        if not isinstance(item, dict) or sorted(item) != sorted(names):
            return None
        sizes = {name: item[name] for name in names}
        if not all(size is None or _is_size(size) for size in sizes.values()):
            return None
        if sizes["spill_fill_bytes"] is None or sizes["vtcm_bytes"] is None:
            return None
        graphs.append(GraphMemory(**cast("dict[str, int]", sizes)))
    return tuple(graphs)


def _is_size(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
