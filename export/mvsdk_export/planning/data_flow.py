"""Which results of a network change from step to step, and which depend on the conditioning alone.

The network runs once on PyTorch's meta device, where only shapes are computed. What changes from
step to step taints every operator that it reaches. A module's result that is not tainted is the
same at all steps of a clip; where something tainted reads it, it can cross from a graph that runs
once to the graph of the steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

MAX_TENSORS = 64
"""Inputs or outputs that a component may have (docs/bundle_format.md, section 4)."""

_SHAPES_ALONE = frozenset(
    {
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
        *("new_zeros", "new_ones", "new_empty", "new_full"),
    }
)
"""Operators that read nothing of their first argument but its shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operator:
    """An operator that reads what depends on an input."""

    reads: tuple[int, ...]
    """Tensors of the kind, by identity."""
    flops: int


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of a module."""

    path: str
    index: int
    """Among the calls of the module."""
    depth: int
    start: int
    """Operators before it."""
    stop: int = 0
    """Operators before its end."""
    output: Tensor | None = None
    """None if it gives anything but one tensor."""

    def holds(self, other: Call) -> bool:
        """Return whether another call is made inside of this one."""
        return self.depth < other.depth and self.start <= other.start and other.stop <= self.stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """What crosses, and what the steps still take."""

    calls: tuple[Call, ...]
    """In the order of their ends."""
    inputs: frozenset[str]
    """Inputs of the conditioning that the steps read beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What results take."""

    flops: int
    inputs: frozenset[str]


class DataFlow(TorchDispatchMode):
    """Record which operator reads what, and which results change from step to step.

    Every tensor is kept until the end, as its identity is its name here; on the meta device that
    takes no memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        """Ended ones, in the order of their ends."""
        self.counts: Counter[str] = Counter()
        self.total_flops = 0
        self.operators: list[_Operator] = []
        self._inputs: dict[int, str] = {}
        self._constant: set[int] = set()
        """Tensors that depend on the conditioning alone, and on some of it."""
        self._changing: set[int] = set()
        self._makers: dict[int, int] = {}
        """Tensor -> number of the operator that makes it."""
        self._needed: dict[int, None] = {}
        """Constant tensors that something changing reads."""
        self._bytes: dict[int, int] = {}
        self._kept: list[Any] = []

    def add_input(self, name: str, tensor: Tensor, *, once: bool) -> None:
        """Add an input: one that is the same at all steps, or one that changes."""
        self._kept.append(tensor)
        self._inputs[id(tensor)] = name
        self._bytes[id(tensor)] = tensor.numel() * tensor.element_size()
        (self._constant if once else self._changing).add(id(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and record it."""
        del types
        named = kwargs or {}
        result = func(*args, **named)
        self._kept += [args, named, result]
        reads = () if _name_of(func) in _SHAPES_ALONE else tuple(tensors_of((args, named)))
        if func._schema.is_mutable and _name_of(func) != "detach_":
            known = self._constant | self._changing
            if any(id(tensor) in known for tensor in reads):
                msg = f"{func} changes a tensor in place"
                raise RuntimeError(msg)
        self._record(func, args, named, result, reads)
        return result

    def _record(
        self, func: Any, args: Any, named: Any, result: Any, reads: tuple[Tensor, ...]
    ) -> None:
        flops = 0
        if (counter := flop_registry.get(func._overloadpacket)) is not None:
            flops = int(counter(*args, **named, out_val=result))
        self.total_flops += flops
        constant = [id(tensor) for tensor in reads if id(tensor) in self._constant]
        is_changing = any(id(tensor) in self._changing for tensor in reads)
        if is_changing:
            self._needed |= dict.fromkeys(constant)
        writes = [tensor for tensor in tensors_of(result) if id(tensor) not in self._inputs]
        number = len(self.operators)
        self.operators.append(_Operator(reads=tuple(constant), flops=flops))
        for tensor in writes:
            if is_changing:
                self._changing.add(id(tensor))
            elif constant:
                self._constant.add(id(tensor))
                self._makers[id(tensor)] = number
                self._bytes[id(tensor)] = tensor.numel() * tensor.element_size()

    def end(self, outputs: Any) -> None:
        """Count what the graph gives as read at every step."""
        self._kept.append(outputs)
        given = [id(tensor) for tensor in tensors_of(outputs)]
        self._needed |= dict.fromkeys(x for x in given if x in self._constant)

    def find_frontier(self) -> Frontier:
        """Return the last results of modules before anything that changes from step to step.

        What can be made again of fewer bytes without a product of matrices does not cross.
        """
        candidates = self._candidates()
        while True:
            frontier = self._frontier(candidates)
            weak = self._inside_another(frontier) or self._too_many(frontier)
            if weak is None:
                return frontier
            candidates = {x: call for x, call in candidates.items() if call.path != weak.path}

    def _candidates(self) -> dict[int, Call]:
        """Return tensors that may cross, each with the outermost call that gives it."""
        found: dict[int, Call] = {}
        for call in self.calls:  # inner calls end first, so outer ones replace them
            if call.output is not None and self._may_cross(call, call.output):
                found[id(call.output)] = call
        return found

    def _may_cross(self, call: Call, output: Tensor) -> bool:
        maker = self._makers.get(id(output))
        if maker is None or maker < call.start or output.dtype != torch.float32:
            return False
        if not 0 < output.dim() <= 8 or output.numel() == 0:
            return False
        if self.behind([call]).flops == 0:
            return False
        inside = self.operators[call.start : call.stop]
        outer = {x for operator in inside for x in operator.reads} - {
            x for x, number in self._makers.items() if call.start <= number < call.stop
        }
        taken = sum(self._bytes[x] for x in outer)
        return any(operator.flops for operator in inside) or self._bytes[id(output)] <= taken

    def _frontier(self, candidates: Mapping[int, Call]) -> Frontier:
        calls: dict[int, Call] = {}
        inputs: set[str] = set()

        def stop(tensor: int) -> bool:
            if tensor in candidates:
                calls[tensor] = candidates[tensor]
            elif tensor in self._inputs:
                inputs.add(self._inputs[tensor])
            return tensor in candidates

        self._walk_back(self._needed, stop)
        ordered = sorted(calls.values(), key=lambda call: (call.stop, -call.depth))
        return Frontier(calls=tuple(ordered), inputs=frozenset(inputs))

    def _inside_another(self, frontier: Frontier) -> Call | None:
        """Return a call whose module also runs inside of another that crosses, if there is one.

        The steps leave out what is inside, and would count the calls of the module otherwise.
        """
        for call in frontier.calls:
            others = [other for other in frontier.calls if other.path != call.path]
            same = [x for x in self.calls if x.path == call.path]
            if any(other.holds(x) for other in others for x in same):
                return call
        return None

    def _too_many(self, frontier: Frontier) -> Call | None:
        """Return the call that takes the least work off the steps, where too many cross."""
        most = MAX_TENSORS - len(self._inputs)
        if len(frontier.calls) <= most:
            return None
        return min(frontier.calls, key=lambda call: self.behind([call]).flops)

    def behind(self, calls: Sequence[Call]) -> Work:
        """Return the floating-point operations that the results of calls take, and the inputs."""
        operators: set[int] = set()
        inputs: set[str] = set()

        def stop(tensor: int) -> bool:
            if tensor in self._inputs:
                inputs.add(self._inputs[tensor])
            else:
                operators.add(self._makers[tensor])
            return False

        self._walk_back([id(call.output) for call in calls], stop)
        flops = sum(self.operators[number].flops for number in operators)
        return Work(flops=flops, inputs=frozenset(inputs))

    def _walk_back(self, tensors: Collection[int], stop: Callable[[int], bool]) -> None:
        """Visit tensors and what they are made of, each once; not what is behind a stop."""
        seen: set[int] = set()
        waiting = list(tensors)
        while waiting:
            tensor = waiting.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            if not stop(tensor) and tensor in self._makers:
                waiting += self.operators[self._makers[tensor]].reads


@contextmanager
def watched(graph: nn.Module, flow: DataFlow) -> Iterator[None]:
    """Tell a flow when modules of a graph are called."""
    stack: list[Call] = []
    handles = [
        handle
        for path, module in graph.named_modules()
        if path
        for handle in _watch(path, module, flow, stack)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(path: str, module: nn.Module, flow: DataFlow, stack: list[Call]) -> Iterator[Any]:
    def begin(*_: object) -> None:
        start = len(flow.operators)
        stack.append(Call(path=path, index=flow.counts[path], depth=len(stack), start=start))
        flow.counts[path] += 1

    def end(module: nn.Module, inputs: object, output: object) -> None:
        del module, inputs
        call = stack.pop()
        call.stop = len(flow.operators)
        call.output = output if isinstance(output, Tensor) else None
        flow.calls.append(call)

    yield module.register_forward_pre_hook(begin)
    yield module.register_forward_hook(end)


def _name_of(func: Any) -> str:
    return func._schema.name.rpartition("::")[2]


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors among the arguments or results of an operator."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors_of(tuple(tree.values()))
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from tensors_of(item)
