"""Capture of a network as an exported program: where targets begin that read PyTorch, not ONNX."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.node import map_arg

from mvsdk_export.errors import UnsupportedOpError, first_line
from mvsdk_export.quiet import quiet


class PixelBorders(nn.Module):
    """A graph with pixels at its border as phones take and give them: whole numbers of 0 to 255.

    The networks of the toolchain know numbers in [0, 1], and leave it to the lowering to make bytes
    of them. ONNX has an operator for that; here it is written out.
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        pixel_inputs: Collection[str] = (),
        pixel_outputs: Collection[str] = (),
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        """Wrap a network.

        Args:
            network: Takes and gives float32; not called graph, a name that torch.fx has for itself.
            inputs: Names of its inputs, in the order of `forward`.
            outputs: Names of what it gives, in order.
            pixel_inputs: Those of the inputs that are pixels.
            pixel_outputs: Those of the outputs that are.
            dtype: Type of the pixels that cross. A float type holds whole numbers too.
        """
        super().__init__()
        self.network = network
        self._takes_pixels = [name in pixel_inputs for name in inputs]
        self._gives_pixels = [name in pixel_outputs for name in outputs]
        self._dtype = dtype
        self.rounds = True
        """False where gradients shall pass: pixels stay real then."""

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the graph, with pixels of the border's type for those that are pixels."""
        taken = [
            value.float() / 255.0 if is_pixels else value
            for value, is_pixels in zip(inputs, self._takes_pixels, strict=True)
        ]
        given = self.network(*taken)
        if isinstance(given, Tensor):
            (is_pixels,) = self._gives_pixels
            return self._to_pixels(given) if is_pixels else given
        return tuple(
            self._to_pixels(value) if is_pixels else value
            for value, is_pixels in zip(given, self._gives_pixels, strict=True)
        )

    def _to_pixels(self, value: Tensor) -> Tensor:
        pixels = value * 255.0
        # Halves to even, as ONNX rounds.
        return torch.round(pixels).to(self._dtype) if self.rounds else pixels


def capture(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    rewrite: Callable[[fx.GraphModule], None] | None = None,
) -> ExportedProgram:
    """Export a network of fixed shapes, with everything folded that depends on weights alone.

    Args:
        network: Network in evaluation mode.
        inputs: Example of every input, in the order of `forward`.
        rewrite: Changes the graph in place for a target, constants folded.

    Returns:
        A program whose inputs are those of `forward`, with weights as parameters or buffers.

    Raises:
        UnsupportedOpError: If it changes a tensor in place, or decides by values what to compute.
    """
    examples = tuple(inputs.values())
    with quiet(), torch.no_grad():
        try:
            module = torch.export.export(network.eval(), examples).module(check_guards=False)
        except (GuardOnDataDependentSymNode, UserError) as exc:
            raise UnsupportedOpError(
                f"{type(network).__name__} cannot be captured: {first_line(exc)}; let what it "
                "computes depend on shapes alone"
            ) from exc
        assert isinstance(module, fx.GraphModule)
        _check_in_place(module)
        _fold_constants_(module)
        _slice_known_places_(module)
        if rewrite is not None:
            rewrite(module)
        return torch.export.export(module, examples)


def _check_in_place(module: fx.GraphModule) -> None:
    """Refuse operators that change what they are given: constants are shared and folded.

    Raises:
        UnsupportedOpError: If there is one.
    """
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        # Constants made in `forward` are detached in place, which changes nothing that is computed.
        if node.target is not torch.ops.aten.detach_.default and schema and schema.is_mutable:
            raise UnsupportedOpError(
                f"the network changes a tensor in place, with {node.target} at {node.name}; write "
                "it without"
            )


def _fold_constants_(module: fx.GraphModule) -> None:
    """Replace what no input reaches by its value, in place.

    A weight that a form slices or rounds in the graph would otherwise be computed on the phone, and
    no compression would see that it is one.
    """
    known: dict[fx.Node, Any] = {}
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)  # held by the capture; it would keep its operand alive
        elif node.op == "get_attr":
            known[node] = attribute_of(module, str(node.target))
        elif node.op == "call_function" and all(x in known for x in node.all_input_nodes):
            arguments = map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
    folded = (x for x in known if x.op == "call_function" and isinstance(known[x], Tensor))
    for index, node in enumerate(list(folded)):
        if all(user in known for user in node.users):
            continue
        name = f"folded_{index}"
        module.register_buffer(name, known[node].detach().clone())
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(name))
    module.graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()


def _slice_known_places_(module: fx.GraphModule) -> None:
    """Replace gathers at known places by slices, in place: NPUs leave gathers to the CPU."""
    for node in list(module.graph.nodes):
        if node.target is not torch.ops.aten.index_select.default:
            continue
        source, axis, places = node.args
        if places.op != "get_attr":
            continue
        wanted: list[int] = attribute_of(module, str(places.target)).tolist()
        with module.graph.inserting_before(node):
            parts = [
                module.graph.call_function(
                    torch.ops.aten.slice.Tensor, (source, axis, run.start, run.stop, run.step)
                )
                for run in _runs(wanted)
            ]
            joined = module.graph.call_function(torch.ops.aten.cat.default, (parts, axis))
        node.replace_all_uses_with(parts[0] if len(parts) == 1 else joined)
    module.graph.eliminate_dead_code()
    module.recompile()


def _runs(places: Sequence[int]) -> list[range]:
    """Return rising ranges of even steps that are these places, one after the other."""
    found: list[range] = []
    for place in places:
        last = found[-1] if found else range(0)
        step = place - last[-1] if last else 0
        if (len(last) == 1 and step > 0) or (len(last) > 1 and step == last.step):
            found[-1] = range(last[0], place + 1, step)
        else:
            found.append(range(place, place + 1))
    return found


def capture_module(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    rewrite: Callable[[fx.GraphModule], None],
    rounds: bool = True,
) -> fx.GraphModule:
    """Return a captured network as a module, whose weights can still be changed.

    Args:
        network: As `capture` takes it, and what follows.
        inputs: The same.
        rewrite: The same.
        rounds: Whether `PixelBorders` round; gradients do not pass what rounds.
    """
    if isinstance(network, PixelBorders):
        network.rounds = rounds
    module = capture(network, inputs, rewrite=rewrite).module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


def attribute_of(module: nn.Module, path: str) -> Any:
    """Return a parameter or buffer of a module by its path: names with points between."""
    *parents, name = path.split(".")
    for parent in parents:
        module = getattr(module, parent)
    return getattr(module, name)
