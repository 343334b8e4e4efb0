"""Which part of a denoiser depends on the conditioning alone, and whether it pays to run it apart.

The network runs once on PyTorch's meta device, where only shapes are computed. What changes from
step to step taints every operator that it reaches. A module's result that is not tainted is the
same at all steps of a clip; where something tainted reads it, it can cross from a graph that runs
once to the graph of the steps. Cuts are at results of modules, so that they are the same for all
targets, whatever the layers inside are implemented by.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mvsdk_export.checkpoints import ModelFolder
from mvsdk_export.checkpoints.building import GraphOptions, build_on_meta, with_frames, wrap
from mvsdk_export.checkpoints.pipeline import make_pipeline, sizes_of
from mvsdk_export.errors import CheckpointError, ExportError, one_line
from mvsdk_export.families.conditioning import cut_recipe, find_conditioning
from mvsdk_export.families.cut import Argument, Crossing, Cut
from mvsdk_export.families.pipeline import Clip, Pipeline, check_pipeline
from mvsdk_export.families.recipe import DENOISERS, ComponentRecipe, Recipe
from mvsdk_export.families.shapes import tensor_shapes
from mvsdk_export.planning.request import ExportRequest

_logger = logging.getLogger(__name__)

MIN_SHARE = 0.03
"""Share of a denoiser's floating-point operations from which on a cut pays. Below it, a clip of
four steps saves about 2 % of the denoiser's time at most: as much as it may take to open one graph
more, and to hand what crosses to every step."""

MAX_TENSORS = 64
"""Inputs or outputs that a component may have (docs/bundle_format.md, section 4)."""

_SHAPES_ALONE = frozenset(
    {
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
        *("new_zeros", "new_ones", "new_empty", "new_full"),
    }
)
"""Operators that read nothing of their first argument but its shape."""


def with_conditioning(request: ExportRequest) -> ExportRequest:
    """Return the request with its denoisers cut where it pays.

    A component that runs once is made in what its denoiser is made in, overrides included.
    """
    if not request.runs_conditioning_once:
        return replace(request, folder=request.folder.with_cuts(()))
    cuts = find_cuts(request.folder, request.clip)
    overrides = dict(request.overrides)
    for cut in cuts:
        if cut.component in overrides:
            overrides.setdefault(cut.name, overrides[cut.component])
    return replace(request, folder=request.folder.with_cuts(cuts), overrides=overrides)


def find_cuts(folder: ModelFolder, clip: Clip, *, min_share: float = MIN_SHARE) -> tuple[Cut, ...]:
    """Return where the denoisers of a model are to be cut, for clips of a size.

    Args:
        folder: The model; cuts that it has do not matter.
        clip: Which clips are made.
        min_share: Share of a denoiser's floating-point operations that a cut takes off its steps.

    Returns:
        At most one for each denoiser; none where its sampler has but one step, or where no bundle
        can hold the pipeline.

    Raises:
        ScheduleError: As `make_pipeline`; so ExportError.
        CheckpointError: If a configuration describes no network that can be built.
    """
    folder = folder.with_cuts(())
    recipe, configs, sizes = folder.recipe, folder.configs(), sizes_of(folder, clip)
    pipeline = make_pipeline(folder, clip)
    if not _is_valid(recipe, pipeline, sizes):
        return ()
    options = GraphOptions(height=clip.height, width=clip.width, guidance=clip.guidance, sigma=1.0)
    cuts: list[Cut] = []
    for part in recipe.components:
        if part.role not in DENOISERS:
            continue
        once = find_conditioning(pipeline.programs, pipeline.samplers, part.name)
        if not once:
            continue
        config = with_frames(configs[part.name], clip.num_frames)
        cut = _find_cut(part, config, options, _arguments(part, sizes), once, min_share)
        if cut is not None and _runs(recipe, cut, config, options):
            cuts.append(cut)
    return tuple(cuts)


def _is_valid(recipe: Recipe, pipeline: Pipeline, sizes: Mapping[str, int]) -> bool:
    """Return whether a bundle can hold a pipeline, which may be another package's.

    What is wrong with it is said where the plan of an export comes to it.
    """
    try:
        check_pipeline(recipe, pipeline, sizes)
    except ExportError:
        return False
    return True


def _arguments(part: ComponentRecipe, sizes: Mapping[str, int]) -> tuple[Argument, ...]:
    shapes = tensor_shapes(part.inputs, sizes)
    return tuple(
        Argument(
            name=tensor.name,
            shape=shape,
            dtype="int32" if tensor.dtype == "int32" else "float32",
        )
        for tensor, shape in zip(part.inputs, shapes, strict=True)
    )


def _find_cut(
    part: ComponentRecipe,
    config: Any,
    options: GraphOptions,
    arguments: Sequence[Argument],
    once: Collection[str],
    min_share: float,
) -> Cut | None:
    graph = wrap(part, build_on_meta(part, config), options)
    taken = {tensor.name for tensor in (*part.inputs, *part.outputs)}
    return cut_of(graph, part.name, arguments, once, names=taken, min_share=min_share)


def _runs(recipe: Recipe, cut: Cut, config: Any, options: GraphOptions) -> bool:
    """Return whether both graphs run: a network may look into a module that is taken out of it."""
    both = cut_recipe(recipe, cut)
    dtypes = {item.name: item.dtype for item in cut.arguments}
    shapes = {item.name: item.shape for item in (*cut.arguments, *cut.crossings)}
    for name in (cut.name, cut.component):
        part = both.component(name)
        graph = wrap(part, build_on_meta(part, config), options)
        inputs = [
            _meta(shapes[tensor.name], dtypes.get(tensor.name, "float32")) for tensor in part.inputs
        ]
        try:
            with torch.device("meta"), torch.no_grad():
                graph(*inputs)
        except (RuntimeError, ValueError, ArithmeticError, AttributeError, TypeError) as exc:
            _logger.debug("%s is not cut: %s", cut.component, one_line(exc))
            return False
    return True


def cut_of(
    graph: nn.Module,
    component: str,
    arguments: Sequence[Argument],
    once: Collection[str],
    *,
    names: Collection[str] = (),
    min_share: float = MIN_SHARE,
) -> Cut | None:
    """Return where a graph is to be cut.

    Args:
        graph: The whole graph, on the meta device, in evaluation mode.
        component: What it is called.
        arguments: Its inputs, in the order of `forward`.
        once: Names of those that are the same at all steps of a clip.
        names: Of tensors of the component, which no other may have.
        min_share: Share of its floating-point operations from which on a cut pays.

    Returns:
        None where it does not pay, or where the graph cannot be cut at results of modules: it
        changes tensors in place, or cannot run at this size.
    """
    flow = _Flow()
    inputs = [_meta(item.shape, item.dtype) for item in arguments]
    for item, tensor in zip(arguments, inputs, strict=True):
        flow.add_input(item.name, tensor, once=item.name in once)
    try:
        with torch.device("meta"), torch.no_grad(), _watched(graph, flow), flow:
            outputs = graph(*inputs)
    except (RuntimeError, ValueError, ArithmeticError, CheckpointError) as exc:
        _logger.debug("%s is not cut: %s", component, one_line(exc))
        return None
    flow.end(outputs)
    frontier = flow.find_frontier()
    if not frontier.calls or flow.total_flops == 0:
        return None
    made = flow.behind(frontier.calls)
    if made.flops < min_share * flow.total_flops:
        return None
    return _make_cut(component, arguments, once, frontier, made.inputs, flow, set(names))


def _make_cut(
    component: str,
    arguments: Sequence[Argument],
    once: Collection[str],
    frontier: _Frontier,
    taken: Collection[str],
    flow: _Flow,
    names: set[str],
) -> Cut:
    names |= {item.name for item in arguments}
    crossings: list[Crossing] = []
    for call in frontier.calls:
        calls = flow.counts[call.path]
        name = _tensor_name(call.path if calls == 1 else f"{call.path}_{call.index}", names)
        names.add(name)
        assert call.output is not None
        crossings.append(
            Crossing(
                name=name,
                module=call.path,
                call=call.index,
                calls=calls,
                shape=tuple(call.output.shape),
            )
        )
    # An input that nothing reads stays where it was.
    kept = {item.name for item in arguments if item.name not in once or item.name not in taken}
    return Cut(
        component=component,
        name=f"{component}_conditioning",
        arguments=tuple(arguments),
        conditioning_inputs=tuple(item.name for item in arguments if item.name in taken),
        step_inputs=tuple(item.name for item in arguments if item.name in kept | frontier.inputs),
        crossings=tuple(crossings),
    )


def _tensor_name(path: str, taken: Collection[str]) -> str:
    """Return a name that Core ML takes too: letters, digits and underscores, no digit first."""
    name = path.replace(".", "_")
    name = f"module_{name}" if name[0].isdigit() else name
    return next(x for x in (name, *(f"{name}_{n}" for n in range(2, 1 << 16))) if x not in taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operator:
    """An operator that reads what depends on an input."""

    reads: tuple[int, ...]
    """Tensors of the kind, by identity."""
    flops: int


@dataclass(slots=True, kw_only=True)
class _Call:
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

    def holds(self, other: _Call) -> bool:
        """Return whether another call is made inside of this one."""
        return self.depth < other.depth and self.start <= other.start and other.stop <= self.stop


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frontier:
    """What crosses, and what the steps still take."""

    calls: tuple[_Call, ...]
    """In the order of their ends."""
    inputs: frozenset[str]
    """Inputs of the conditioning that the steps read beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    flops: int
    inputs: frozenset[str]


class _Flow(TorchDispatchMode):
    """Record which operator reads what, and which results change from step to step.

    Every tensor is kept until the end, as its identity is its name here; on the meta device that
    takes no memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
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
        del types
        named = kwargs or {}
        result = func(*args, **named)
        self._kept += [args, named, result]
        reads = () if _name_of(func) in _SHAPES_ALONE else tuple(_tensors((args, named)))
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
        writes = [tensor for tensor in _tensors(result) if id(tensor) not in self._inputs]
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
        given = [id(tensor) for tensor in _tensors(outputs)]
        self._needed |= dict.fromkeys(x for x in given if x in self._constant)

    def find_frontier(self) -> _Frontier:
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

    def _candidates(self) -> dict[int, _Call]:
        """Return tensors that may cross, each with the outermost call that gives it."""
        found: dict[int, _Call] = {}
        for call in self.calls:  # inner calls end first, so outer ones replace them
            if call.output is not None and self._may_cross(call, call.output):
                found[id(call.output)] = call
        return found

    def _may_cross(self, call: _Call, output: Tensor) -> bool:
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

    def _frontier(self, candidates: Mapping[int, _Call]) -> _Frontier:
        calls: dict[int, _Call] = {}
        inputs: set[str] = set()

        def stop(tensor: int) -> bool:
            if tensor in candidates:
                calls[tensor] = candidates[tensor]
            elif tensor in self._inputs:
                inputs.add(self._inputs[tensor])
            return tensor in candidates

        self._walk_back(self._needed, stop)
        ordered = sorted(calls.values(), key=lambda call: (call.stop, -call.depth))
        return _Frontier(calls=tuple(ordered), inputs=frozenset(inputs))

    def _inside_another(self, frontier: _Frontier) -> _Call | None:
        """Return a call whose module also runs inside of another that crosses, if there is one.

        The steps leave out what is inside, and would count the calls of the module otherwise.
        """
        for call in frontier.calls:
            others = [other for other in frontier.calls if other.path != call.path]
            same = [x for x in self.calls if x.path == call.path]
            if any(other.holds(x) for other in others for x in same):
                return call
        return None

    def _too_many(self, frontier: _Frontier) -> _Call | None:
        """Return the call that takes the least work off the steps, where too many cross."""
        most = MAX_TENSORS - len(self._inputs)
        if len(frontier.calls) <= most:
            return None
        return min(frontier.calls, key=lambda call: self.behind([call]).flops)

    def behind(self, calls: Sequence[_Call]) -> _Made:
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
        return _Made(flops=flops, inputs=frozenset(inputs))

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
def _watched(graph: nn.Module, flow: _Flow) -> Iterator[None]:
    """Tell a flow when modules of a graph are called."""
    stack: list[_Call] = []
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


def _watch(path: str, module: nn.Module, flow: _Flow, stack: list[_Call]) -> Iterator[Any]:
    def begin(*_: object) -> None:
        start = len(flow.operators)
        stack.append(_Call(path=path, index=flow.counts[path], depth=len(stack), start=start))
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


def _meta(shape: Sequence[int], dtype: str) -> Tensor:
    return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device="meta")


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(tuple(tree.values()))
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors(item)
