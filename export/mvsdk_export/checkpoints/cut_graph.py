"""A denoiser's graph as two: what depends on the conditioning alone, and what runs at every step.

Both run the forward pass of the whole network. The graph of the conditioning gives zeros for what
changes from step to step, and keeps what the modules of the cut give; the rest of its work has no
reader, and every capture of a graph leaves such work out. In the graph of the steps these modules
give what crossed, and inputs that nothing else reads are zeros that have no reader in turn. Modules
keep their classes, paths and implementations: layers are switched as in the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvsdk_export.families.cut import Crossing, Cut
from mvsdk_export.families.recipe import ComponentRecipe


def cut_graph(component: ComponentRecipe, graph: nn.Module) -> nn.Module:
    """Return the part of a whole graph that a component of a cut is.

    Args:
        component: Which part: of the role `conditioning` the one, of any other that of the steps.
        graph: The whole graph, in evaluation mode; it is changed, and belongs to the result.

    Raises:
        ValueError: If the graph has no module that the cut names.
    """
    assert component.cut is not None
    if component.role == "conditioning":
        return ConditioningGraph(graph, component.cut).eval()
    return StepGraph(graph, component.cut).eval()


class ConditioningGraph(nn.Module):
    """Gives what some modules of a network make of the conditioning.

    Args:
        network: The whole graph, in evaluation mode.
        cut: Names the modules, none of which depends on what is not among its conditioning inputs.
    """

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.network = network
        self.cut = cut
        self._taps = {path: _Tap() for path in _modules_of(cut)}
        for path, tap in self._taps.items():
            _module(network, path).register_forward_hook(tap)

    def forward(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        """Run the network as far as the cut.

        Args:
            *inputs: The cut's conditioning inputs, in order: shapes and types as it says.
            **named: Or all of them by name.

        Returns:
            What crosses, in the order of the cut, float32.

        Raises:
            RuntimeError: If a module of the cut was not called as often as the cut says.
        """
        given = _by_name(self.cut.conditioning_inputs, inputs, named)
        for tap in self._taps.values():
            tap.outputs.clear()
        self.network(*_arguments(self.cut, given))
        for item in self.cut.crossings:
            _check_calls(item, len(self._taps[item.module].outputs))
        found = tuple(self._taps[item.module].outputs[item.call] for item in self.cut.crossings)
        for tap in self._taps.values():
            tap.outputs.clear()
        return found


class StepGraph(nn.Module):
    """Runs a network whose modules at the cut give what crossed.

    Args:
        network: The whole graph, in evaluation mode. Modules all of whose calls cross lose their
            weights.
        cut: Where it is cut.
    """

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.network = network
        self.cut = cut
        self._stubs: dict[str, _Stub] = {}
        for path, items in _modules_of(cut).items():
            module = _module(network, path)
            is_whole = len(items) == items[0].calls
            stub = _Stub(None if is_whole else module.forward)
            module.forward = stub
            if is_whole:
                _drop_weights_(module)
            self._stubs[path] = stub

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Run the network.

        Args:
            *inputs: The cut's step inputs, then what crosses, in order: shapes and types as the cut
                says.
            **named: Or all of them by name.

        Returns:
            What the whole network gives.

        Raises:
            RuntimeError: If a module of the cut was not called as often as the cut says.
        """
        crossings = self.cut.crossings
        names = (*self.cut.step_inputs, *(item.name for item in crossings))
        given = _by_name(names, inputs, named)
        for stub in self._stubs.values():
            stub.reset()
        for item in crossings:
            self._stubs[item.module].values[item.call] = given[item.name]
        outputs = self.network(*_arguments(self.cut, given))
        for item in crossings:
            _check_calls(item, self._stubs[item.module].calls)
        for stub in self._stubs.values():
            stub.reset()
        return outputs


class _Tap:
    """A forward hook that keeps what a module gives, call by call.

    An object and no closure: copies of a network get hooks of their own.
    """

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        del module, inputs
        self.outputs.append(output)


class _Stub:
    """Stands in for the `forward` of a module: some of its calls are given."""

    def __init__(self, original: Any) -> None:
        self.original = original
        """The module's own; None where every call is given."""
        self.reset()

    def reset(self) -> None:
        self.values: dict[int, Tensor] = {}
        self.calls = 0

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        call = self.calls
        self.calls += 1
        if call in self.values:
            return self.values[call]
        if self.original is None:
            msg = f"a module of the cut is called {self.calls} times, {len(self.values)} are given"
            raise RuntimeError(msg)
        return self.original(*inputs, **named)


def _check_calls(item: Crossing, calls: int) -> None:
    if calls != item.calls:
        msg = f"{item.module} is called {calls} times, the cut was made where it is {item.calls}"
        raise RuntimeError(msg)


def _arguments(cut: Cut, given: Mapping[str, Tensor]) -> list[Tensor]:
    """Return all arguments of the whole network, zeros for those that are not given."""
    device = next(iter(given.values())).device
    return [
        given[item.name]
        if item.name in given
        else torch.zeros(item.shape, dtype=getattr(torch, item.dtype), device=device)
        for item in cut.arguments
    ]


def _by_name(
    names: Sequence[str], inputs: Sequence[Tensor], named: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    found = dict(zip(names, inputs, strict=not named))
    found |= named
    if missing := [name for name in names if name not in found]:
        msg = f"the graph lacks its input {missing[0]}"
        raise TypeError(msg)
    return found


def _modules_of(cut: Cut) -> dict[str, list[Crossing]]:
    found: dict[str, list[Crossing]] = {}
    for item in cut.crossings:
        found.setdefault(item.module, []).append(item)
    return found


def _module(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError as exc:
        msg = f"the network has no module {path}, at which it is to be cut"
        raise ValueError(msg) from exc


def _drop_weights_(module: nn.Module) -> None:
    """Leave a module without parameters, buffers and children: its own code finds None for them."""
    for name in [name for name, _ in module.named_parameters(recurse=False)]:
        module.register_parameter(name, None)
    for name in [name for name, _ in module.named_buffers(recurse=False)]:
        module.register_buffer(name, None)
    for name in [name for name, _ in module.named_children()]:
        module.register_module(name, None)
