"""Cutting an ONNX model into consecutive parts, for compilers that cannot take it in one piece.

The parts run one after the other and compute what the whole does, bit by bit. A value that crosses
a cut is an output of the part that makes it, and an input of every later part that reads it: skip
connections pass by the parts between. Weights go from file to file and never lie in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mvsdk_export.errors import ExportError
from mvsdk_export.graphs.external_data import move_tensors, size_bytes, tensor_bytes
from mvsdk_export.graphs.renaming import rename_values

_SLACKS = (0.1, 0.2, 0.4, 0.8, math.inf)
"""Shares of the mean weight by which a part may differ from it, in the order of trying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of several models that run in sequence; its large constants are in a file beside it."""

    path: Path
    inputs: tuple[str, ...]
    """Inputs of the whole that the part reads, and values of earlier parts."""
    outputs: tuple[str, ...]
    """Values that later parts read, and outputs of the whole."""
    nodes: int
    weight_bytes: int
    """Bytes of the constants; those that several parts need count in each."""


def split_model(
    source: Path, folder: Path, *, parts: int | None = None, most_bytes: int
) -> list[Part]:
    """Cut a model into consecutive parts of about equal weight where few bytes cross.

    Args:
        source: Model of fixed shapes; its constants may be in files beside it.
        folder: Existing folder for `part_0.onnx`, `part_0.data`, `part_1.onnx` and so on.
        parts: Number of parts, from 1; None takes the fewest that `most_bytes` allows.
        most_bytes: Largest weight of a part, in bytes of constants as they are stored in `source`.

    Returns:
        The parts in the order in which they run.

    Raises:
        ExportError: If the model cannot be cut so, or the shape of a value is not known.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(source, load_external_data=False))
    network = _Network(model)
    bounds = _choose_bounds(network, parts, most_bytes)
    return [
        network.write(start, stop, source.parent, folder / f"part_{index}.onnx")
        for index, (start, stop) in enumerate(pairwise(bounds))
    ]


def crossing_values(parts: Sequence[Part]) -> set[str]:
    """Return the names of the values that go from one part to another."""
    made = {name for part in parts for name in part.outputs}
    return {name for part in parts for name in part.inputs if name in made}


def agree_quantized(model: onnx.ModelProto, made: Mapping[str, tuple[float, int]]) -> None:
    """Let a quantised part take its inputs as the parts before it make them.

    Each part is quantised alone. Maker and reader of a value calibrate on the same numbers and
    mostly give it the same scale; then it just crosses. Where an operator ties its scale to
    something that the other part cannot see (a clip, a softmax, a reshaped constant), the reader
    keeps its own scale behind a requantisation, which the HTP has as one elementwise operator.

    Args:
        model: QDQ model with float borders, before `quantize_signature`; changed in place.
        made: Name -> (scale, zero point) of what `quantize_signature` changed in earlier parts:
            their outputs, and inputs of the whole that they read too.
    """
    graph = model.graph
    for value in graph.output:
        _set_apart(graph, value.name)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in made:
            continue
        value.type.tensor_type.elem_type = onnx.TensorProto.UINT16
        readers = [node for node in graph.node if value.name in node.input]
        if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
            scale, zero_point = (numpy_helper.to_array(constants[x]) for x in readers[0].input[1:3])
            if (float(scale), int(zero_point)) == made[value.name]:
                rename_values(graph.node, {readers[0].output[0]: value.name})
                graph.node.remove(readers[0])
                continue
        inner = f"{value.name}/float"
        rename_values(readers, {value.name: inner})
        terms = {
            f"{value.name}/scale": np.array(made[value.name][0], np.float32),
            f"{value.name}/zero_point": np.array(made[value.name][1], np.uint16),
        }
        graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in terms.items())
        node = helper.make_node("DequantizeLinear", [value.name, *terms], [inner], f"{inner}_made")
        graph.node.insert(0, node)


def agree_float16(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Let values cross as float16 that a part takes or gives as float32.

    Args:
        model: Model with float32 borders, of float16 inside (`convert_float16`) or of float32;
            changed in place.
        names: Values that go from part to part.
    """
    graph = model.graph
    crossing = [x for x in [*graph.input, *graph.output] if x.name in names]
    for value in crossing:
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            continue
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        makers = [node for node in graph.node if value.name in node.output]
        readers = [node for node in graph.node if value.name in node.input]
        if makers and not readers and _casts_to(makers[0], onnx.TensorProto.FLOAT):
            graph.node.remove(makers[0])
            rename_values(graph.node, {makers[0].input[0]: value.name})
        elif not makers and all(_casts_to(x, onnx.TensorProto.FLOAT16) for x in readers):
            for reader in readers:
                graph.node.remove(reader)
                rename_values(graph.node, {reader.output[0]: value.name})
        else:
            inner = f"{value.name}/float32"
            rename_values([*makers, *readers], {value.name: inner})
            names_of = [inner, value.name] if makers else [value.name, inner]
            kind = onnx.TensorProto.FLOAT16 if makers else onnx.TensorProto.FLOAT
            cast = helper.make_node("Cast", names_of[:1], names_of[1:], f"{inner}_cast", to=kind)
            graph.node.insert(len(graph.node) if makers else 0, cast)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(x.name == "to" and x.i == kind for x in node.attribute)


def _set_apart(graph: onnx.GraphProto, output: str) -> None:
    """Give those who read a dequantised output inside the graph a dequantisation of their own."""
    maker = next((node for node in graph.node if output in node.output), None)
    readers = [node for node in graph.node if output in node.input]
    if maker is None or maker.op_type != "DequantizeLinear" or not readers:
        return
    inner = onnx.NodeProto()
    inner.CopyFrom(maker)
    inner.name, inner.output[0] = f"{maker.name}/inside", f"{output}/inside"
    rename_values(readers, {output: inner.output[0]})
    graph.node.insert(list(graph.node).index(maker), inner)


class _Network:
    """A graph as its cuts see it: nodes in order, who makes what and who reads it last."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.makers: dict[str, onnx.NodeProto] = {}
        """Nodes with constant results; they go into every part that reads them."""
        self.nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if self._is_constant(node):
                self.makers |= dict.fromkeys(node.output, node)
            else:
                self.nodes.append(node)
        self.nodes = self._gathered()
        self.made = {x: i for i, node in enumerate(self.nodes) for x in node.output if x}
        self.reads = [list(_reads(node)) for node in self.nodes]
        self.last_read = {x: i for i, names in enumerate(self.reads) for x in names}
        self.results = {value.name for value in graph.output}
        known = [*graph.value_info, *graph.input, *graph.output]
        self.values = {value.name: value for value in known}
        self.shell = onnx.ModelProto()
        self.shell.CopyFrom(model)
        for field in ("node", "initializer", "input", "output", "value_info"):
            self.shell.graph.ClearField(field)

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        names = list(_reads(node))
        found = all(name in self.tensors or name in self.makers for name in names)
        return node.op_type == "Constant" or (bool(names) and found)

    def _gathered(self) -> list[onnx.NodeProto]:
        """Return the nodes in an order in which those that share a kernel are near each other.

        A graph that evaluates a network twice, as guidance does, would need all weights once more
        in its second half.
        """
        reads = [list(_reads(node)) for node in self.nodes]
        kernels = [[x for x in self._constants(names)[0] if self._is_kernel(x)] for names in reads]
        sharing = self._shared_kernels(kernels)
        made = {x: i for i, node in enumerate(self.nodes) for x in node.output if x}
        order: dict[int, None] = {}
        for index, names in enumerate(kernels):
            pending = [*(other for name in names for other in sharing.get(name, [])), index]
            while pending:
                found = pending[-1]
                before = [made[x] for x in reads[found] if x in made and made[x] not in order]
                if before:
                    pending += before
                else:
                    order[pending.pop()] = None
        return [self.nodes[index] for index in order]

    def _shared_kernels(self, kernels: Sequence[Sequence[str]]) -> dict[str, list[int]]:
        """Return the nodes that read each kernel that is read as often as most weights are.

        What is read more often is no layer's own, such as sums over heads.
        """
        readers: dict[str, list[int]] = {}
        for index, names in enumerate(kernels):
            for name in names:
                readers.setdefault(name, []).append(index)
        weights: Counter[int] = Counter()
        for name, nodes in readers.items():
            weights[len(nodes)] += tensor_bytes(self.tensors[name])
        usual = max(weights, key=weights.__getitem__, default=1)
        return {name: nodes for name, nodes in readers.items() if len(nodes) == usual}

    def _is_kernel(self, name: str) -> bool:
        """Tell kernels from shapes and vectors, which a simplifier shares among any nodes."""
        tensor = self.tensors[name]
        kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        return tensor.data_type in kinds and sum(size > 1 for size in tensor.dims) > 1

    def weights(self) -> NDArray[np.int64]:
        """Return the bytes of the constants that each node is the first to read, plus one."""
        seen: set[str] = set()
        found = np.ones(len(self.nodes), np.int64)  # cuts advance also where nothing is read
        for index, names in enumerate(self.reads):
            fresh = [name for name in self._constants(names)[0] if name not in seen]
            seen.update(fresh)
            found[index] += sum(tensor_bytes(self.tensors[name]) for name in fresh)
        return found

    def weight_of(self, start: int, stop: int) -> int:
        """Return the bytes of the constants of a part."""
        names, _ = self._constants(x for names in self.reads[start:stop] for x in names)
        return sum(tensor_bytes(self.tensors[name]) for name in names)

    def crossing(self) -> NDArray[np.int64]:
        """Return the bytes that cross every cut, from before the first node to behind the last.

        A constant that is read on both sides counts: both parts will hold it.
        """
        spans = [
            (maker, self.last_read.get(name, maker), _value_bytes(self._known(name)))
            for name, maker in self.made.items()
            if self.last_read.get(name, maker) > maker
        ]
        readers: dict[str, list[int]] = {}
        for index, names in enumerate(self.reads):
            for name in self._constants(names)[0]:
                readers.setdefault(name, []).append(index)
        spans += [(x[0], x[-1], tensor_bytes(self.tensors[n])) for n, x in readers.items()]
        change = np.zeros(len(self.nodes) + 1, np.int64)
        for first, last, size in spans:
            change[first + 1] += size
            change[last + 1] -= size
        return np.cumsum(change)

    def write(self, start: int, stop: int, home: Path, path: Path) -> Part:
        """Write the nodes from `start` to before `stop` as a model of their own."""
        reads = list(dict.fromkeys(x for names in self.reads[start:stop] for x in names))
        tensors, nodes = self._constants(reads)
        made = [x for x, index in self.made.items() if start <= index < stop]
        inputs = [x for x in reads if x not in {*made, *self.tensors, *self.makers}]
        outputs = [x for x in made if self.last_read.get(x, -1) >= stop or x in self.results]
        part = onnx.ModelProto()
        part.CopyFrom(self.shell)
        part.graph.node.extend([*nodes, *self.nodes[start:stop]])
        part.graph.input.extend(self._known(name) for name in inputs)
        part.graph.output.extend(self._known(name) for name in outputs)
        inner = [x for x in made if x in self.values and x not in outputs]
        part.graph.value_info.extend(self.values[name] for name in inner)
        part.graph.initializer.extend(
            move_tensors((self.tensors[name] for name in tensors), home, path.with_suffix(".data"))
        )
        onnx.save(part, path)
        return Part(
            path=path,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            nodes=stop - start,
            weight_bytes=self.weight_of(start, stop),
        )

    def _constants(self, names: Iterable[str]) -> tuple[list[str], list[onnx.NodeProto]]:
        """Return what stands behind those of the values that are constant: tensors and nodes."""
        tensors: dict[str, None] = {}
        nodes: dict[str, onnx.NodeProto] = {}
        for name in names:
            if name in self.tensors:
                tensors[name] = None
            elif name in self.makers and self.makers[name].output[0] not in nodes:
                node = self.makers[name]
                below = self._constants(_reads(node))
                tensors |= dict.fromkeys(below[0])
                nodes |= {x.output[0]: x for x in [*below[1], node]}
        return list(tensors), list(nodes.values())

    def _known(self, name: str) -> onnx.ValueInfoProto:
        value = self.values.get(name)
        tensor = None if value is None else value.type.tensor_type
        sizes = [] if tensor is None else tensor.shape.dim
        if value is None or not tensor or not all(x.HasField("dim_value") for x in sizes):
            raise ExportError(
                f"the model cannot be cut: the shape of {name!r} is not known; "
                "export it with fixed shapes"
            )
        return value


def _choose_bounds(network: _Network, parts: int | None, most_bytes: int) -> list[int]:
    """Return where parts start and end, as numbers of nodes: 0, the cuts, the number of nodes."""
    weights = np.concatenate([[0], np.cumsum(network.weights())])
    crossing = network.crossing()
    total = int(weights[-1])
    fewest = max(1, math.ceil((total - len(network.nodes)) / most_bytes))
    counts = [parts] if parts is not None else range(fewest, len(network.nodes) + 1)
    for count in counts:
        for slack in _SLACKS:
            least, most = (total / count * x for x in (max(1 - slack, 0), 1 + slack))
            most = min(most, most_bytes + len(network.nodes))
            bounds = _cheapest_bounds(weights, crossing, count, least, most)
            spans = pairwise(bounds)
            if bounds and all(network.weight_of(*span) <= most_bytes for span in spans):
                return bounds
    raise ExportError(
        f"the model cannot be cut into {parts or 'any number of'} parts of at most "
        f"{most_bytes / 2**20:.0f} MiB: it has {total / 2**20:.0f} MiB in {len(network.nodes)} "
        "nodes; allow larger parts or more of them"
    )


def _cheapest_bounds(
    weights: NDArray[np.int64],
    crossing: NDArray[np.int64],
    parts: int,
    least: float,
    most: float,
) -> list[int]:
    """Return the bounds of least crossing with parts of `least` to `most`; none: empty.

    Dynamic programming over the number of parts and where the last of them ends.
    """
    size = len(weights)
    first = np.searchsorted(weights, weights - most, side="left")
    behind = np.minimum(np.searchsorted(weights, weights - least, side="right"), np.arange(size))
    costs = np.full(size, np.inf)
    costs[0] = 0
    steps: list[NDArray[np.int64]] = []
    for _ in range(parts):
        new, origin = np.full(size, np.inf), np.zeros(size, np.int64)
        for end in range(1, size):
            window = costs[first[end] : behind[end]]
            if window.size:
                origin[end] = first[end] + int(window.argmin())
                new[end] = costs[origin[end]] + crossing[end]
        costs = new
        steps.append(origin)
    if not np.isfinite(costs[-1]):
        return []
    bounds = [size - 1]
    for origin in reversed(steps):
        bounds.insert(0, int(origin[bounds[0]]))
    return bounds


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Return what a node reads, also inside its branches and loops."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            inner = {value.name for value in [*graph.input, *graph.initializer]}
            for below in graph.node:
                yield from (name for name in _reads(below) if name not in inner)
                inner.update(below.output)


def _value_bytes(value: onnx.ValueInfoProto) -> int:
    tensor = value.type.tensor_type
    return size_bytes([x.dim_value for x in tensor.shape.dim], tensor.elem_type)
