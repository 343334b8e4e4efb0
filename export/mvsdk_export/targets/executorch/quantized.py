"""8-bit ExecuTorch programs for XNNPACK: which layers bear it is measured on recorded calls.

Linear layers get int8 weights, one scale for each output, and activations that are quantised anew
in every run; convolutions get the same weights and activations of ranges that calibration saw.
Where that costs too much of the output, a layer stays in float32. What each costs is measured for
all layers at once, as in quantize/mixed.py: a quantised layer is off by d in its own output, and a
gradient of the network's output tells what that does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from mvsdk._installed import toolchain_install
from mvsdk.manifest import Delegation
from mvsdk_export.errors import CompressionError, TargetUnavailableError
from mvsdk_export.graphs.capture import attribute_of, capture_module
from mvsdk_export.jobs.progress import counting
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.quantize.mixed import (
    PROBES,
    Feed,
    outputs_of,
    probe_of,
    run_feed,
    search,
    spread,
    tensors_of,
    worst_db,
)
from mvsdk_export.quiet import quiet
from mvsdk_export.targets.executorch.graph import write_for_xnnpack_
from mvsdk_export.targets.executorch.lowering import (
    import_executorch,
    plain_program,
    write_program,
    xnnpack_partitioners,
)

_LINEAR, _CONV = torch.ops.aten.linear.default, torch.ops.aten.conv2d.default
_ROUNDS = 4
"""Programs that are quantised and measured at most."""
_CALIBRATION_CALLS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantised network and what it is worth."""

    module: nn.Module
    layers: frozenset[str]
    """Names of the quantised layers."""
    of: int
    """Layers that could be."""
    sqnr_db: float
    """Measured: the worst of the looked-at calls."""
    bits: float
    """Mean width of the weights of all these layers."""

    def summary(self) -> dict[str, Any]:
        """Return what reports say."""
        return {
            "bits": round(self.bits, 3),
            "sqnr_db": round(self.sqnr_db, 2),
            "schemes": {"float32": self.of - len(self.layers), "w8a8": len(self.layers)},
        }


def lower_xnnpack_8bit(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    feeds: Sequence[Feed],
    path: Path,
    *,
    target_db: float,
    external_weights: bool = False,
    etrecord: bool = False,
) -> tuple[Delegation, Quantized]:
    """Lower a network in 8 bits for XNNPACK, as far as its output bears it.

    Args:
        network: Network in the forms of training, which are switched.
        inputs: Example of every input, in the order of `forward`.
        feeds: Inputs of recorded calls.
        path: The .pte file to write.
        target_db: SQNR that each output shall keep on the recorded calls.
        external_weights: As `lower_xnnpack` has it.
        etrecord: Likewise.

    Raises:
        TargetUnavailableError: If ExecuTorch or torchao is missing.
        CompressionError: If there are no calls to measure on.
    """
    exir = import_executorch("exir")
    if not feeds:
        raise CompressionError("no recorded calls to measure on; export with calibration prompts")
    select_implementations_(network, "xnnpack")
    smooth = _capture_layers(network, inputs, rounds=False)
    module = _capture_layers(network, inputs)
    found = quantize(module, spread(feeds, _CALIBRATION_CALLS), target_db, smooth=smooth)
    with quiet():
        program = torch.export.export(found.module, tuple(inputs.values()))
    delegation = write_program(
        exir,
        plain_program(program),
        path,
        partitioners=xnnpack_partitioners(),
        external_weights=external_weights,
        etrecord=etrecord,
    )
    return delegation, found


def quantize(
    module: fx.GraphModule,
    feeds: Sequence[Feed],
    target_db: float,
    *,
    smooth: fx.GraphModule | None = None,
) -> Quantized:
    """Quantise as many weights as the output bears.

    Args:
        module: Captured network, which is left as it was.
        feeds: Inputs of recorded calls.
        target_db: SQNR that each output shall keep on them.
        smooth: The same with an output that gradients pass; None if that of the module is.
    """
    layers = _layers_of(module)
    sizes = {name: _weight(module, node).numel() for name, node in layers.items()}
    shares = _measure_shares(smooth or module, _layers_of(smooth or module), feeds)
    references = [run_feed(module, feed) for feed in feeds]

    def try_aim(aim_db: float) -> Quantized:
        chosen = _pick(shares, sizes, 10 ** (-aim_db / 10))
        made = _convert(module, chosen, feeds)
        values = [
            worst_db(run_feed(made, feed), reference)
            for feed, reference in zip(feeds, references, strict=True)
        ]
        kept = sum(sizes[name] for name in layers.keys() - chosen)
        return Quantized(
            module=made,
            layers=chosen,
            of=len(layers),
            sqnr_db=min(values),
            bits=8 + 24 * kept / max(1, sum(sizes.values())),
        )

    return search(try_aim, target_db, _ROUNDS)


def _capture_layers(
    network: nn.Module, inputs: Mapping[str, Tensor], *, rounds: bool = True
) -> fx.GraphModule:
    module = capture_module(network, inputs, rewrite=write_for_xnnpack_, rounds=rounds)
    _part_biases_(module)
    return module


def _part_biases_(module: fx.GraphModule) -> None:
    """Give every call of a layer a bias of its own, in place.

    In 8 bits a bias has the scale of what it is added to, so calls of one layer need several; in
    one graph XNNPACK would take the first of them for all.
    """
    taken: set[str] = set()
    for node in _layers_of(module).values():
        bias = node.args[2] if len(node.args) > 2 else None
        if not isinstance(bias, fx.Node) or bias.op != "get_attr":
            continue
        name = str(bias.target)
        if name in taken:
            copy = f"bias_of_{node.name}"
            module.register_parameter(
                copy, nn.Parameter(attribute_of(module, name).detach().clone())
            )
            with module.graph.inserting_before(node):
                own = module.graph.get_attr(copy)
            own.meta = dict(bias.meta)
            node.replace_input_with(bias, own)
        taken.add(name)
    module.graph.eliminate_dead_code()
    module.recompile()


def _layers_of(module: fx.GraphModule) -> dict[str, fx.Node]:
    return {
        node.name: node
        for node in module.graph.nodes
        if node.target in (_LINEAR, _CONV) and _operand(node, 1).op == "get_attr"
    }


def _pick(shares: Mapping[str, float], sizes: Mapping[str, int], allowed: float) -> frozenset[str]:
    """Return the layers that cost least for their size, as long as their sum is allowed."""
    chosen: set[str] = set()
    total = 0.0
    for name in sorted(shares, key=lambda name: (shares[name] / sizes[name], name)):
        if total + shares[name] <= allowed:
            total += shares[name]
            chosen.add(name)
    return frozenset(chosen)


def _convert(module: fx.GraphModule, layers: frozenset[str], feeds: Sequence[Feed]) -> nn.Module:
    """Return the module with these layers quantised, calibrated on the calls."""
    quantizer = import_executorch("backends.xnnpack.quantizer.xnnpack_quantizer")
    try:
        with quiet():
            pt2e = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    except ImportError as exc:
        raise TargetUnavailableError(
            f"8 bits need torchao ({exc}); run: {toolchain_install('executorch')}"
        ) from exc
    configure = quantizer.get_symmetric_quantization_config
    chosen = quantizer.XNNPACKQuantizer()
    chosen.set_operator_type(_LINEAR, configure(is_per_channel=True, is_dynamic=True))
    chosen.set_operator_type(_CONV, configure(is_per_channel=True))
    # It is asked about what a layer reads as well.
    kinds = (_LINEAR, _CONV)
    chosen.set_filter_function(lambda node: node.target not in kinds or node.name in layers)
    with quiet():
        copy = fx.GraphModule(module, _copy_graph(module.graph))
        prepared = pt2e.prepare_pt2e(copy, chosen)
        for feed in feeds:
            run_feed(prepared, feed)
        return pt2e.convert_pt2e(prepared)


def _copy_graph(graph: fx.Graph) -> fx.Graph:
    copy = fx.Graph()
    output = copy.graph_copy(graph, {})
    copy.output(output)
    copy._codegen = graph._codegen  # how the module takes and gives its tensors
    return copy


def _measure_shares(
    module: fx.GraphModule, layers: Mapping[str, fx.Node], feeds: Sequence[Feed]
) -> dict[str, float]:
    """Return what quantising each layer adds to |error|^2 / |output|^2, the mean over the calls.

    Of several outputs it is the sum.
    """
    ranges: dict[str, tuple[float, float]] = {}
    convolutions = {name: node for name, node in layers.items() if node.target is _CONV}
    count = counting(2 * len(feeds), "measured calls")
    for feed in feeds:
        _Ranges(module, convolutions, ranges).run(*tensors_of(feed))
        count()
    generator = torch.Generator().manual_seed(0)
    total = dict.fromkeys(layers, 0.0)
    if not layers:
        return total
    weights = [x for x in module.parameters() if x.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        for feed in feeds:
            probe = _Errors(module, layers, ranges)
            outputs = outputs_of(probe.run(*tensors_of(feed)))
            names = list(probe.found)
            for index in range(PROBES):
                gradients = torch.autograd.grad(
                    probe_of(outputs, generator),
                    [probe.found[name][0] for name in names],
                    retain_graph=index + 1 < PROBES,
                    allow_unused=True,
                )
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:
                        error = float((probe.found[name][1] * gradient).sum())
                        total[name] += error**2 / (len(feeds) * PROBES)
            count()
    for weight in weights:
        weight.requires_grad_(False)
    return total


class _Ranges(fx.Interpreter):
    """Runs a module and widens the ranges of what convolutions take."""

    def __init__(
        self,
        module: fx.GraphModule,
        layers: Mapping[str, fx.Node],
        ranges: dict[str, tuple[float, float]],
    ) -> None:
        super().__init__(module)
        self._layers, self._ranges = layers, ranges

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, as the interpreter does."""
        if n.name in self._layers:
            args, _ = self.fetch_args_kwargs_from_env(n)
            low, high = self._ranges.get(n.name, (0.0, 0.0))
            given = args[0].detach()
            self._ranges[n.name] = (min(low, float(given.min())), max(high, float(given.max())))
        return super().run_node(n)


class _Errors(fx.Interpreter):
    """Runs a module and keeps what each layer gives, and by how much it would be off in 8 bits."""

    def __init__(
        self,
        module: fx.GraphModule,
        layers: Mapping[str, fx.Node],
        ranges: Mapping[str, tuple[float, float]],
    ) -> None:
        super().__init__(module)
        self._layers, self._ranges = layers, ranges
        self.found: dict[str, tuple[Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, as the interpreter does."""
        made = super().run_node(n)
        if n.name in self._layers:
            if not made.requires_grad:  # nothing before it is a parameter: folded weights are not
                made.requires_grad_(True)
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            x, weight, *others = args
            with torch.no_grad():
                dynamic = (min(0.0, float(x.min())), max(0.0, float(x.max())))
                limits = self._ranges.get(n.name, dynamic)
                changed = (_rounded(x, limits), _rounded_weight(weight), *others)
                assert callable(n.target)
                self.found[n.name] = (made, n.target(*changed, **kwargs) - made)
        return made


def _rounded(x: Tensor, limits: tuple[float, float]) -> Tensor:
    """Round to 256 even steps between two limits."""
    low, high = limits
    scale = max(high - low, 1e-12) / 255
    return torch.round((x.clamp(low, high) - low) / scale) * scale + low


def _rounded_weight(weight: Tensor) -> Tensor:
    """Round to int8 with a scale for each output."""
    rows = weight.flatten(1)
    scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=float(np.finfo(np.float32).tiny)) / 127
    return (torch.round(rows / scale) * scale).reshape(weight.shape)


def _weight(module: nn.Module, node: fx.Node) -> Tensor:
    return attribute_of(module, str(_operand(node, 1).target))


def _operand(node: fx.Node, place: int) -> fx.Node:
    operand = node.args[place]
    assert isinstance(operand, fx.Node)
    return operand
