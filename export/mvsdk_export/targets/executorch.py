"""Lowering to ExecuTorch: programs for XNNPACK, which runs on any phone's CPU.

XNNPACK takes what it has a kernel for, and ExecuTorch's portable kernels run the rest, slowly and
in the order of the program: every operator left outside cuts a delegate's graph in two. So shapes
are told in the few operators that XNNPACK knows, and group normalisation in means and products.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from mvsdk.manifest import LeftOutside, Residency
from mvsdk_export.errors import TargetUnavailableError, UnsupportedOpError
from mvsdk_export.networks.target_forms import set_xnnpack_forms_
from mvsdk_export.targets.capture import capture

INSTALL = "pip install 'mvsdk[executorch]'"
ETRECORD = "etrecord.bin"
_OPS = torch.ops.aten
_NOT_COUNTED = ("getitem", "executorch_call_delegate", "alloc")
_REASONS: Mapping[str, str] = {
    "native_layer_norm": "XNNPACK has no normalisation over the last axis alone",
    "native_group_norm": "XNNPACK has no group normalisation",
    "embedding": "XNNPACK looks nothing up",
    "_softmax": "XNNPACK has a softmax over the last axis only",
    "sum": "XNNPACK has no sum",
    "mean": "XNNPACK has a mean over height and width only",
    "round": "XNNPACK does not round",
    "upsample_nearest2d": "XNNPACK has no nearest upsampling",
    "slice_copy": "XNNPACK slices with a step of 1 only",
    "expand_copy": "XNNPACK repeats nothing",
}


def lower_xnnpack(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    path: Path,
    *,
    external_weights: bool = False,
    etrecord: bool = False,
) -> Residency:
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
    set_xnnpack_forms_(network)
    program = plain_program(capture(network, inputs, rewrite=tell_shapes_))
    return write_program(exir, program, path, external_weights=external_weights, etrecord=etrecord)


def write_program(
    exir: Any,
    program: ExportedProgram,
    path: Path,
    *,
    partitioners: Sequence[Any] | None = None,
    external_weights: bool = False,
    etrecord: bool = False,
) -> Residency:
    """Lower an exported program and write it; see `lower_xnnpack`.

    Args:
        exir: ExecuTorch's module.
        program: The program.
        path: The .pte file to write.
        partitioners: What hands operators to delegates; None for XNNPACK's.
        external_weights: As `lower_xnnpack` has it.
        etrecord: Likewise.
    """
    if external_weights:
        _put_outside_(program, path.stem)
    try:
        with quiet():
            edge = exir.to_edge_transform_and_lower(
                program,
                partitioner=_partitioners() if partitioners is None else list(partitioners),
                generate_etrecord=etrecord,
            )
            residency = _residency(edge.exported_program().graph_module)
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
    return residency


def _partitioners() -> list[Any]:
    """Return what hands operators to XNNPACK.

    Layers whose activations are quantised anew come first, each for itself: among others they make
    graphs that wait for each other.
    """
    partition = import_executorch("backends.xnnpack.partition.xnnpack_partitioner")
    config = import_executorch("backends.xnnpack.partition.config.xnnpack_config")
    dynamic = config.ConfigPrecisionType.DYNAMIC_QUANT
    return [
        partition.XnnpackPartitioner(config_precisions=dynamic, per_op_mode=True),
        partition.XnnpackPartitioner(),
    ]


def plain_program(program: ExportedProgram) -> ExportedProgram:
    """Return a program in core operators, without those that do nothing.

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
        if node.target is _OPS.expand.default:
            (source, _), value = node.args[:2], node.meta["val"]
            if source.meta["val"].shape == value.shape:
                node.replace_all_uses_with(source)
                program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def tell_shapes_(module: fx.GraphModule) -> None:
    """Write what only moves elements as slices and reshapes, in place."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in (_OPS.chunk.default, _OPS.split_with_sizes.default, _OPS.split.Tensor):
            _slice_parts_(graph, node)
        elif node.target is _OPS.select.int:
            source, axis, place = node.args
            place %= source.meta["val"].shape[axis]
            with graph.inserting_before(node):
                part = graph.call_function(_OPS.slice.Tensor, (source, axis, place, place + 1))
                shaped = graph.call_function(_OPS.reshape.default, (part, _shape(node)))
            shaped.meta = dict(node.meta)
            node.replace_all_uses_with(shaped)
        elif node.target in (
            _OPS.squeeze.dim,
            _OPS.squeeze.dims,
            _OPS.unsqueeze.default,
            _OPS.flatten.using_ints,
        ):
            node.target = _OPS.reshape.default
            node.args, node.kwargs = (node.args[0], _shape(node)), {}
    graph.eliminate_dead_code()
    module.recompile()


def _slice_parts_(graph: fx.Graph, node: fx.Node) -> None:
    source = node.args[0]
    axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    parts: Sequence[Tensor] = node.meta["val"]
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.shape[axis])  # type: ignore[index]
    for user in list(node.users):
        place = user.args[1]
        assert isinstance(place, int)
        with graph.inserting_before(user):
            sliced = graph.call_function(
                _OPS.slice.Tensor, (source, axis, starts[place], starts[place + 1])
            )
        sliced.meta = dict(user.meta)
        user.replace_all_uses_with(sliced)


def _shape(node: fx.Node) -> list[int]:
    return list(node.meta["val"].shape)


def _residency(module: fx.GraphModule) -> Residency:
    """Count what delegates take and name what they do not."""
    outside = tuple(
        LeftOutside(
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
    return Residency(npu_nodes=taken, cpu_nodes=len(outside), left_outside=outside)


def _operator(node: fx.Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    return name.removeprefix("aten.").split(".")[0]


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
            f"target executorch needs ExecuTorch ({exc}); run: {INSTALL}"
        ) from exc


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what ExecuTorch prints and warns of off the terminal."""
    # torchao, which comes with it, registers what PyTorch now knows by itself.
    for name in ("executorch", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def first_line(exc: BaseException) -> str:
    """Return the first line of an exception's text."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:500]
