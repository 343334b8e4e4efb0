"""What a graph costs: parameters, floating-point operations, bytes. No weights are needed.

The graph runs once on PyTorch's meta device, in the implementations that phones get, so only
shapes are computed. FLOPs are twice the multiply-accumulates of convolutions, linear layers and
matrix products; elementwise work is not counted.

The activation peak is an upper estimate: every operator's result gets a buffer of its own that is
freed after its last reader, in the order of the program. Compilers fuse, reorder, reuse buffers in
place and tile, so a phone needs less. Constants that a graph computes are folded, and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mvsdk.manifest import Precision
from mvsdk_export.checkpoints.building import GraphOptions, build_on_meta, with_frames, wrap
from mvsdk_export.errors import ExportError
from mvsdk_export.families import DECODER, ComponentRecipe, Recipe
from mvsdk_export.families.shapes import graph_sizes, input_shapes
from mvsdk_export.layers.selection import select_implementations_
from mvsdk_export.planning.data_flow import tensors_of
from mvsdk_export.planning.preflight import COUNTED_PRECISIONS

KERNEL_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "w8a16": 1}
"""Bytes of an element of a kernel or matrix."""
EMBEDDING_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "w8a16": 2}
"""Bytes of an element of a table that is looked up: its rows are activations."""
VECTOR_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "w8a16": 4}
"""Bytes of an element of a bias or a norm's scale: a quantised graph keeps these in 32 bits."""
ACTIVATION_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "w8a16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentCosts:
    """Costs of one graph, for one evaluation."""

    component: str
    parameters: int
    """Of the layers that the graph uses: a decoder's graph does not count the encoder."""
    flops: int
    weight_bytes: Mapping[Precision, int]
    activation_peak_bytes: Mapping[Precision, int]
    """Largest sum of activations alive at once, inputs and outputs included."""
    working_set_bytes: Mapping[Precision, int]
    """Activations that the hungriest single operator reads and writes."""
    hungriest_operator: str
    frames: int = 1
    """Frames that one evaluation makes, of a decoder."""
    parts: int = 1
    """Evaluations that one pass over a clip takes."""
    per_step: bool = False
    """Whether there is a pass for every step."""

    def evaluations(self, steps: int) -> int:
        """Return how often the graph runs in a clip of `steps` steps."""
        return self.parts * (steps if self.per_step else 1)

    def to_numbers(self) -> dict[str, float]:
        """Return the costs as a bundle's manifest keeps them, units in the names."""
        numbers: dict[str, float] = {"parameters": self.parameters, "flops": self.flops}
        for precision in COUNTED_PRECISIONS:
            numbers[f"weight_{precision}_bytes"] = self.weight_bytes[precision]
            numbers[f"activation_peak_{precision}_bytes"] = self.activation_peak_bytes[precision]
        return numbers


def measure_recipe(
    recipe: Recipe,
    configs: Mapping[str, Any],
    *,
    num_frames: int,
    height: int,
    width: int,
    guidance: tuple[float, float] | None = None,
    decode_frames: int | None = None,
) -> tuple[ComponentCosts, ...]:
    """Return the costs of every component for clips of a size.

    Args:
        recipe: The model.
        configs: Component name -> configuration of its network.
        num_frames: Frames of a clip.
        height: Pixels.
        width: Pixels.
        guidance: Classifier-free guidance, with which the denoiser's graph runs its network twice,
            or runs twice itself (`Recipe.guidance`); None for none.
        decode_frames: Frames that the decoder takes at once, a divisor of `num_frames`; None for
            all.

    Raises:
        CheckpointError: If a configuration describes no network that can be built.
        ExportError: If a graph cannot run at this size.
    """
    sizes = graph_sizes(
        configs, num_frames=num_frames, height=height, width=width, decode_frames=decode_frames
    )
    # No cost depends on the noise level, which is a constant of the graph.
    options = GraphOptions(height=height, width=width, guidance=guidance, sigma=1.0)
    costs = [
        _measure_part(part, with_frames(configs[part.name], num_frames), sizes, options)
        for part in recipe.components
    ]
    if recipe.guidance == "text" and guidance is not None:  # both texts, on one set of graphs
        roles = {part.name: part.role for part in recipe.components}
        costs = [
            replace(item, parts=2 * item.parts)
            if roles[item.component] in ("text_encoder", "denoiser")
            else item
            for item in costs
        ]
    return tuple(costs)


def measure_decoder(
    recipe: Recipe,
    configs: Mapping[str, Any],
    *,
    num_frames: int,
    height: int,
    width: int,
    decode_frames: int,
) -> ComponentCosts:
    """Return the costs of the decoder alone, as `measure_recipe` does.

    Raises:
        CheckpointError: As `measure_recipe`; so ExportError.
    """
    sizes = graph_sizes(
        configs, num_frames=num_frames, height=height, width=width, decode_frames=decode_frames
    )
    config = with_frames(configs[DECODER], num_frames)
    options = GraphOptions(height=height, width=width, sigma=1.0)
    return _measure_part(recipe.component(DECODER), config, sizes, options)


def _measure_part(
    part: ComponentRecipe, config: Any, sizes: Mapping[str, int], options: GraphOptions
) -> ComponentCosts:
    item = measure_component(part, config, sizes, options)
    if part.role == "denoiser":
        return replace(item, per_step=True)
    if part.name != DECODER:
        return item
    return replace(item, frames=sizes["f"], parts=sizes["F"] // sizes["f"])


def estimate_crossing_bytes(
    component: ComponentRecipe,
    config: Any,
    sizes: Mapping[str, int],
    options: GraphOptions,
    parts: int,
) -> int:
    """Estimate the float32 bytes of what the parts of a cut graph give to later ones, in one call.

    As graphs/split.py cuts, parts have about equal weights and little crosses. Guidance doubles
    what crosses: both evaluations run through a part before the next one begins.

    Args:
        component: As `measure_component` takes it; so `config` and `sizes`.
        config: Configuration of the network.
        sizes: Sizes that the symbols of shapes have.
        options: Of the graph; its guidance tells one evaluation from two.
        parts: Number of parts.
    """
    once = replace(options, guidance=None)
    graph = wrap(component, select_implementations_(build_on_meta(component, config), "htp"), once)
    trace = _trace(component.name, graph, _empty_inputs(component, sizes))
    return trace.crossing_bytes(parts) * (1 if options.guidance is None else 2)


def measure_component(
    component: ComponentRecipe,
    config: Any,
    sizes: Mapping[str, int],
    options: GraphOptions | None = None,
) -> ComponentCosts:
    """Return the costs of one component at the sizes that the symbols of its shapes have."""
    return _measure_once(component, config, tuple(sorted(sizes.items())), options)


@cache
def _measure_once(
    component: ComponentRecipe,
    config: Any,
    sizes: tuple[tuple[str, int], ...],
    options: GraphOptions | None,
) -> ComponentCosts:
    """Do it once a process: it is asked for by whoever chooses a size, and by whoever plans."""
    network = select_implementations_(build_on_meta(component, config), "htp")
    graph = wrap(component, network, options)
    return measure_graph(component.name, graph, *_empty_inputs(component, dict(sizes)))


def _empty_inputs(component: ComponentRecipe, sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    shapes = input_shapes(component, sizes)
    return tuple(
        torch.empty(shapes[tensor.name], dtype=getattr(torch, tensor.dtype), device="meta")
        for tensor in component.inputs
    )


def count_flops(run: Callable[..., Any], *inputs: Tensor) -> Mapping[str, int]:
    """Return the floating-point operations of a network, and of every module inside that runs.

    Args:
        run: A module, or a method of one, on the meta device.
        *inputs: Its tensors, on the meta device.

    Returns:
        Module path -> operations, twice the multiply-accumulates; "" is all of them. Paths begin
        at the module that runs first. A module without such operations may be missing.

    Raises:
        ExportError: If it cannot run on them.
    """
    counter = FlopCounterMode(display=False)
    try:
        with torch.device("meta"), torch.no_grad(), counter:
            run(*inputs)
    except (RuntimeError, ValueError, ArithmeticError) as exc:
        raise ExportError(
            f"costs cannot be counted for inputs of shape {_shapes(inputs)}: "
            f"{' '.join(str(exc).split())}; choose another size"
        ) from exc
    counts = {"": counter.get_total_flops()}
    for name, operators in counter.get_flop_counts().items():
        _, _, path = name.partition(".")
        if path:
            counts[path] = sum(operators.values())
    return counts


def measure_graph(name: str, graph: nn.Module, *inputs: Tensor) -> ComponentCosts:
    """Return the costs of a module on given inputs, all on the meta device.

    Raises:
        ExportError: If the module cannot run on them.
    """
    trace = _trace(name, graph, inputs)
    weights = trace.weights
    tables = {_storage(x.weight) for x in graph.modules() if isinstance(x, nn.Embedding)}
    embeddings = sum(x.numel() for x in weights if _storage(x) in tables)
    kernels = sum(x.numel() for x in weights if x.dim() > 1) - embeddings
    vectors = sum(weight.numel() for weight in weights if weight.dim() <= 1)
    hungriest = max(trace.operators, key=lambda item: trace.working_set(item, "fp32"))
    return ComponentCosts(
        component=name,
        parameters=kernels + embeddings + vectors,
        flops=sum(item.flops for item in trace.operators),
        weight_bytes={
            p: kernels * KERNEL_BYTES[p]
            + embeddings * EMBEDDING_BYTES[p]
            + vectors * VECTOR_BYTES[p]
            for p in COUNTED_PRECISIONS
        },
        activation_peak_bytes={p: trace.peak_bytes(p) for p in COUNTED_PRECISIONS},
        working_set_bytes={p: trace.working_set(hungriest, p) for p in COUNTED_PRECISIONS},
        hungriest_operator=hungriest.name,
    )


def _trace(name: str, graph: nn.Module, inputs: tuple[Tensor, ...]) -> _Trace:
    """Run a graph on the meta device and return what it did.

    Raises:
        ExportError: If it cannot run on the inputs.
    """
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(graph, inputs, counter)
    try:
        with torch.device("meta"), torch.no_grad(), counter, recorder:
            outputs = graph(*_as_taken(inputs))
    except (RuntimeError, ValueError, ArithmeticError) as exc:
        raise ExportError(
            f"{name} cannot run on inputs of shape {_shapes(inputs)}: "
            f"{' '.join(str(exc).split())}; choose another size, or correct its config.json"
        ) from exc
    return _Trace(recorder, outputs)


def _as_taken(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return inputs as networks take them: a graph makes numbers of bytes first."""
    return [x.float() if x.dtype == torch.uint8 else x for x in inputs]


@dataclass(slots=True, kw_only=True)
class _Buffer:
    """Memory of an activation: alive from the operator that makes it to the last that reads it."""

    elements: int
    element_bytes: int | None
    """None for floating point, whose width the precision decides."""
    born: int = 0
    died: int = 0

    def bytes(self, precision: Precision) -> int:
        return self.elements * (self.element_bytes or ACTIVATION_BYTES[precision])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operator:
    name: str
    reads: frozenset[int]
    """Activations."""
    writes: frozenset[int]
    weights: frozenset[int]
    flops: int

    @property
    def buffers(self) -> frozenset[int]:
        """Activations that take room of their own while it runs; a view takes none."""
        return frozenset() if self.writes <= self.reads else self.reads | self.writes


class _Recorder(TorchDispatchMode):
    """Record which operator reads and writes which activation, in order.

    Buffers are told apart by their storage, so views cost nothing. Every tensor is kept until the
    end, as an address may be used again otherwise; on the meta device that takes no memory.
    """

    def __init__(
        self, graph: nn.Module, inputs: tuple[Tensor, ...], counter: FlopCounterMode
    ) -> None:
        super().__init__()
        self.operators: list[_Operator] = []
        self.weights = {_storage(weight): weight for weight in graph.parameters()}
        self._weights_in = {storage: frozenset([storage]) for storage in self.weights}
        """Constant -> the weights that it is computed from."""
        self.buffers: dict[int, _Buffer] = {}
        self._counter = counter
        self._kept: list[Tensor] = []
        for tensor in inputs:
            self._add(tensor)
        self.inputs = dict(self.buffers)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        before = self._counter.get_total_flops()
        result = func(*args, **(kwargs or {}))
        flops = self._counter.get_total_flops() - before
        read = {_storage(tensor) for tensor in tensors_of((args, kwargs))}
        written = list(tensors_of(result))
        weights = frozenset().union(*(self._weights_in.get(x, frozenset()) for x in read))
        if activations := read & self.buffers.keys():
            for tensor in written:
                self._add(tensor)
            self.operators.append(
                _Operator(
                    name=str(func),
                    reads=frozenset(activations),
                    writes=frozenset(map(_storage, written)),
                    weights=weights,
                    flops=flops,
                )
            )
        else:  # computed from weights and constants alone: folded by every exporter
            self._kept += written
            self._weights_in |= {_storage(tensor): weights for tensor in written}
        return result

    def _add(self, tensor: Tensor) -> None:
        self._kept.append(tensor)
        element_bytes = None if tensor.is_floating_point() else tensor.element_size()
        elements = tensor.untyped_storage().nbytes() // tensor.element_size()
        buffer = _Buffer(elements=elements, element_bytes=element_bytes)
        self.buffers.setdefault(_storage(tensor), buffer)


class _Trace:
    """The operators of a graph that a capture of it keeps: those whose results are read."""

    def __init__(self, recorder: _Recorder, outputs: Any) -> None:
        alive = {_storage(tensor) for tensor in tensors_of(outputs)}
        ends = alive & recorder.buffers.keys()
        kept: list[_Operator] = []
        for operator in reversed(recorder.operators):
            if operator.writes & alive:
                kept.append(operator)
                alive |= operator.reads
        self.operators = kept[::-1]
        self._buffers = self._live_buffers(recorder, ends)
        used: dict[int, Tensor] = {}
        self._weights_before: list[int] = []
        """Elements of the weights that were read up to each operator."""
        read = 0
        for operator in self.operators:
            for storage in operator.weights - used.keys():
                used[storage] = recorder.weights[storage]
                read += used[storage].numel()
            self._weights_before.append(read)
        self.weights = list(used.values())

    def _live_buffers(self, recorder: _Recorder, ends: set[int]) -> dict[int, _Buffer]:
        """Return inputs and what the operators make; outputs are alive to the end."""
        found = {storage: replace(buffer) for storage, buffer in recorder.inputs.items()}
        for now, operator in enumerate(self.operators):
            for storage in operator.writes:
                found.setdefault(storage, replace(recorder.buffers[storage], born=now, died=now))
            for storage in operator.reads:
                found[storage].died = now
        for storage in ends:
            found[storage].died = len(self.operators) - 1
        return found

    def peak_bytes(self, precision: Precision) -> int:
        """Return the largest sum of buffers that are alive during one operator."""
        changes = [0] * (len(self.operators) + 1)
        for buffer in self._buffers.values():
            changes[buffer.born] += buffer.bytes(precision)
            changes[buffer.died + 1] -= buffer.bytes(precision)
        return max(accumulate(changes))

    def crossing_bytes(self, parts: int) -> int:
        """Return the float32 bytes that cross any of the cuts into parts of about equal weight.

        Each cut is where least crosses, a tenth of a part before or behind the equal share.
        """
        read = self._weights_before
        alive = [0] * (len(read) + 1)
        made = [buffer for buffer in self._buffers.values() if buffer.born or buffer.died]
        for buffer in made:
            alive[buffer.born] += buffer.bytes("fp32")
            alive[buffer.died] -= buffer.bytes("fp32")
        alive = list(accumulate(alive))
        share = read[-1] / parts
        cuts = [
            min(
                (i for i, x in enumerate(read) if abs(x - share * part) <= share / 10),
                key=alive.__getitem__,
                default=min(range(len(read)), key=lambda i: abs(read[i] - share * part)),
            )
            for part in range(1, parts)
        ]
        return sum(
            buffer.bytes("fp32")
            for buffer in made
            if any(buffer.born <= cut < buffer.died for cut in cuts)
        )

    def working_set(self, operator: _Operator, precision: Precision) -> int:
        """Return the bytes of the activations that an operator reads and writes."""
        return sum(self._buffers[storage].bytes(precision) for storage in operator.buffers)


def _shapes(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
