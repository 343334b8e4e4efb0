"""Lowering to ExecuTorch: programs for XNNPACK, which runs on any phone's CPU.

XNNPACK takes what it has a kernel for, and ExecuTorch's portable kernels run the rest:
executorch_graph.py has the forms that leave little to them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.passes.infra.partitioner import Partition

from mvsdk._installed import toolchain_install
from mvsdk.manifest import Delegation, NonDelegated
from mvsdk_export.errors import TargetUnavailableError, UnsupportedOpError, first_line
from mvsdk_export.graphs.capture import capture
from mvsdk_export.graphs.memory import lean_heap, shared_weights
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.quiet import quiet
from mvsdk_export.targets.executorch.graph import write_for_xnnpack_

ETRECORD = "etrecord.bin"
_NOT_COUNTED = ("getitem", "executorch_call_delegate", "alloc")
_REASONS: Mapping[str, str] = {
    "native_layer_norm": "XNNPACK has no normalisation over axes before the last",
    "native_group_norm": "XNNPACK has no group normalisation",
    "embedding": "XNNPACK looks nothing up",
    "round": "XNNPACK does not round",
    "upsample_nearest2d": "XNNPACK repeats pixels in whole factors only",
    "_to_dim_order_copy": "XNNPACK converts neither bytes nor whole numbers",
    "_clone_dim_order": "XNNPACK copies no tensor for its layout",
}


def lower_xnnpack(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    path: Path,
    *,
    external_weights: bool = False,
    etrecord: bool = False,
) -> Delegation:
    """Lower a network in float32 for XNNPACK.

    Args:
        network: Network in the forms of training, which are switched.
        inputs: Example of every input, in the order of `forward`.
        path: The .pte file to write; weights may come beside it.
        external_weights: Keep the weights in a .ptd file of the same name.
        etrecord: Write `etrecord.bin` beside the program, for ExecuTorch's Inspector.

    Returns:
        Operators that are delegated, and those that are left, each with the reason.

    Raises:
        TargetUnavailableError: If ExecuTorch is missing.
        UnsupportedOpError: If it cannot lower the network.
    """
    exir = import_executorch("exir")
    select_implementations_(network, "xnnpack")
    program = plain_program(capture(network, inputs, rewrite=write_for_xnnpack_))
    return write_program(
        exir,
        program,
        path,
        partitioners=xnnpack_partitioners(),
        external_weights=external_weights,
        etrecord=etrecord,
    )


def write_program(
    exir: Any,
    program: ExportedProgram,
    path: Path,
    *,
    partitioners: Sequence[Any],
    external_weights: bool = False,
    etrecord: bool = False,
) -> Delegation:
    """Lower an exported program and write it; see `lower_xnnpack`.

    Args:
        exir: ExecuTorch's module.
        program: The program.
        path: The .pte file to write.
        partitioners: What hands operators to delegates.
        external_weights: As `lower_xnnpack` has it.
        etrecord: Likewise.
    """
    if external_weights:
        _put_outside_(program, path.stem)
    try:
        with quiet(), lean_heap(), shared_weights():
            edge = exir.to_edge_transform_and_lower(
                program,
                partitioner=list(partitioners),
                generate_etrecord=etrecord,
            )
            delegation = _delegation(edge.exported_program().graph_module)
            kept = (lambda _: path.stem) if external_weights else False
            config = exir.ExecutorchBackendConfig(external_constants=kept)
            made = edge.to_executorch(config)
            del edge
    except Exception as exc:  # the passes of ExecuTorch raise all kinds
        raise UnsupportedOpError(
            f"ExecuTorch refused {path.stem}: {first_line(exc)}; try another size, or report this"
        ) from exc
    with path.open("wb") as sink:
        made.write_to_file(sink)
    if external_weights:
        made.write_tensor_data_to_file(str(path.parent))
    if etrecord:
        made.get_etrecord().save(str(path.with_name(ETRECORD)))
    return delegation


def xnnpack_partitioners() -> list[Any]:
    """Return what hands operators to XNNPACK, in few delegates."""
    partition = import_executorch("backends.xnnpack.partition.xnnpack_partitioner")

    class Partitioner(partition.XnnpackPartitioner):  # type: ignore[name-defined]
        def generate_partitions(self, ep: ExportedProgram) -> list[Partition]:
            parts = delegates_of(ep.graph, self.get_matched_nodes_from_configs(ep))
            if parts is None:
                return super().generate_partitions(ep)
            return [Partition(id=place, nodes=nodes) for place, nodes in enumerate(parts)]

    return [Partitioner()]


def delegates_of(
    graph: fx.Graph, groups: Sequence[Sequence[fx.Node]]
) -> list[list[fx.Node]] | None:
    """Part what XNNPACK takes into delegates, one more than operators outside follow each other.

    ExecuTorch's own way, which joins what it may pair by pair, can end in many more: then what one
    gives in 8 bits has channels last, which the next does not expect. Here nodes with as many
    operators outside before them, on the path that has most of these, go together; or later, with
    what needs them, where nothing outside does.

    Args:
        graph: The program's graph.
        groups: Nodes that XNNPACK takes, those of one operator and its quantisation together.

    Returns:
        The nodes of each delegate, in the order of running; None if an operator outside stands
        between nodes of a group.
    """
    group_of = {node: place for place, group in enumerate(groups) for node in group}
    calls = [node for node in graph.nodes if node.op == "call_function"]
    most = sum(node not in group_of for node in calls)
    depths = [0] * len(groups)
    outside: dict[fx.Node, int] = {}

    def depth_after(given: fx.Node) -> int:
        if given in outside:
            return outside[given] + 1
        # What is not called, weights say, is there from the start.
        return depths[group_of[given]] if given.op == "call_function" else 0

    settled = False
    while not settled:  # a group is as deep as its deepest node, which may come last
        settled = True
        for node in calls:
            depth = max(map(depth_after, node.all_input_nodes), default=0)
            if node not in group_of:
                outside[node] = depth
            elif depth > depths[group_of[node]]:
                depths[group_of[node]] = depth
                settled = False
        if max(depths, default=0) > most:
            return None
    deepest = max(depths, default=0)
    for place in _from_the_end(calls, group_of):
        called = [node for node in groups[place] if node.op == "call_function"]
        users = {user for node in called for user in node.users}
        if not any(user in outside for user in users):
            later = {group_of[user] for user in users if user in group_of} - {place}
            depths[place] = min((depths[x] for x in later), default=deepest)
    parts: dict[int, list[fx.Node]] = {}
    for node, place in group_of.items():
        parts.setdefault(depths[place], []).append(node)
    return [parts[depth] for depth in sorted(parts)]


def _from_the_end(calls: Sequence[fx.Node], group_of: Mapping[fx.Node, int]) -> Iterable[int]:
    """Return groups in the order of their last nodes, the last first."""
    return dict.fromkeys(group_of[node] for node in reversed(calls) if node in group_of)


def plain_program(program: ExportedProgram) -> ExportedProgram:
    """Return a program in core operators, whose tensors are contiguous.

    Layouts that eager PyTorch would choose, channels last, are taken back: portable kernels want
    one layout for all that they take and give.
    """
    with quiet():
        program = program.run_decompositions({})
    for node in list(program.graph.nodes):
        if node.op != "call_function":
            continue
        if node.kwargs.get("memory_format") is not None:
            node.kwargs = {**node.kwargs, "memory_format": torch.contiguous_format}
    program.graph_module.recompile()
    return program


def _delegation(module: fx.GraphModule) -> Delegation:
    """Count what delegates take and name what they do not."""
    outside = tuple(
        NonDelegated(
            operator=name,
            name=node.name,
            reason=_REASONS.get(name, "XNNPACK's partitioner does not take it"),
        )
        for node in module.graph.nodes
        if node.op == "call_function" and (name := _operator(node)) not in _NOT_COUNTED
    )
    lowered: list[Any] = [x for x in module.children() if hasattr(x, "original_module")]
    taken = sum(
        1
        for child in lowered
        for node in child.original_module.graph.nodes
        if node.op == "call_function"
    )
    return Delegation(delegated=taken, non_delegated=outside)


def _operator(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    return name.removeprefix("aten.").removeprefix("dim_order_ops.").split(".")[0]


def _put_outside_(program: ExportedProgram, name: str) -> None:
    """Mark the weights that a delegate takes as kept in a file of this name, in place."""
    weights = {spec.arg.name for spec in program.graph_signature.input_specs if spec.target}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in weights:
            node.meta["custom"] = {
                **node.meta.get("custom", {}),
                "delegate_constant_tag": name,
            }


def import_executorch(module: str) -> Any:
    """Import a module of ExecuTorch.

    Raises:
        TargetUnavailableError: If it is missing.
    """
    try:
        with quiet():
            return importlib.import_module(f"executorch.{module}")
    except ImportError as exc:
        raise TargetUnavailableError(
            f"target executorch needs ExecuTorch ({exc}); run: {toolchain_install('executorch')}"
        ) from exc
