"""Weights of fewer bits in Core AI assets: the operators that decode them, in place of weights.

The arrays are ours (quantize/weights.py). Apple's own passes for this, in coreai-opt, give palettes
that are as good, but take ten times as long, compile C++ where they run, pass over a weight whose
channels a group does not divide, and do not measure which weight needs how many bits. What decodes
is Core AI's: `lut_to_dense` and `blockwise_shift_scale`, which compute `Compressed.dense`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from mvsdk_export.quantize.activations import Feed
from mvsdk_export.quantize.mixed import Assignment, assign
from mvsdk_export.quantize.weights import Compressed, Linear, WeightScheme, compress, divisor
from mvsdk_export.targets.coreai.implementations import tidy_
from mvsdk_export.targets.coreai.tools import import_coreai
from mvsdk_export.targets.coreml.compress import LEAST_ELEMENTS, PALETTE_GROUP, schemes_for

_OPS = torch.ops.aten
_WEIGHTS: Mapping[Any, int] = {
    _OPS.conv2d.default: 1,
    _OPS.conv2d.padding: 1,
    _OPS.linear.default: 1,
    _OPS.embedding.default: 0,
}
"""Operator -> which operand is a weight `(D, ...)`."""


def assign_weights(
    module: fx.GraphModule,
    precision: str,
    feeds: Sequence[Feed],
    target_db: float,
    group: int | None,
) -> Assignment:
    """Compress the weights of a captured network, with more bits where its output needs them.

    Args:
        module: The network; its weights stay as they are.
        precision: w8, w6 or w4: the width that most weights shall have.
        feeds: Inputs of recorded calls.
        target_db: SQNR that the output shall keep on them.
        group: Output channels that share a palette; None for 16, or fewer where that does not
            divide the channels of a weight.

    Raises:
        CompressionError: If palettes for so many channels are impossible for a weight, or there are
            no calls to measure on.
    """
    shapes = {name: tuple(module.state_dict()[name].shape) for name in find_weights(module)}
    # Scales by blocks of inputs are not among what Apple advises for phones.
    candidates = {
        name: [x for x in schemes_for(name, shape, precision, True, group) if not x.block]
        for name, shape in shapes.items()
    }
    return assign(module, candidates, feeds, target_db=target_db)


def compress_weights(
    module: fx.GraphModule, precision: str, group: int | None
) -> dict[str, Compressed]:
    """Compress the weights of a captured network, all to the same width; see `assign_weights`."""
    weights = module.state_dict()
    return {
        name: compress(
            name, weights[name].numpy(), scheme_of(weights[name].shape, precision, group)
        )
        for name in find_weights(module)
    }


def find_weights(module: fx.GraphModule) -> list[str]:
    """Return the names of weights that are large enough and nothing else than weights."""
    found: dict[str, bool] = {}
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        name = str(node.target)
        used = all(_is_weight(node, user) for user in node.users)
        found[name] = found.get(name, True) and used
    weights = module.state_dict()
    return [
        name
        for name, used in found.items()
        if used
        and name in weights
        and weights[name].is_floating_point()
        and weights[name].numel() >= LEAST_ELEMENTS
    ]


def _is_weight(node: fx.Node, user: fx.Node) -> bool:
    place = _WEIGHTS.get(user.target)
    return place is not None and user.args[place] is node


def scheme_of(shape: Sequence[int], precision: str, group: int | None) -> WeightScheme:
    """Return how a weight is stored where all have the same width.

    Args:
        shape: (D, ...).
        precision: w8 (int8, a scale for each output channel), w6 or w4 (palettes).
        group: As `assign_weights` takes it.
    """
    if precision == "w8":
        return WeightScheme(kind="linear", bits=8)
    shared = divisor(shape[0], PALETTE_GROUP) if group is None else group
    return WeightScheme(kind="palette", bits=6 if precision == "w6" else 4, group=shared)


def store_weights_(module: fx.GraphModule, weights: Mapping[str, Compressed]) -> None:
    """Put the operators that decode weights where weights were, in place."""
    import_coreai("coreai_torch._compression.custom_layers")  # registers the operators
    made: dict[str, tuple[Any, tuple[Any, ...]]] = {}
    for index, (name, found) in enumerate(weights.items()):
        made[name] = _register(module, index, found)
    for node in list(module.graph.nodes):
        if node.op == "get_attr" and str(node.target) in made:
            target, arguments = made[str(node.target)]
            with module.graph.inserting_before(node):
                read = [module.graph.get_attr(x) if isinstance(x, str) else x for x in arguments]
                decoded = module.graph.call_function(target, tuple(read))
            node.replace_all_uses_with(decoded)
    tidy_(module)


def _register(module: nn.Module, index: int, found: Compressed) -> tuple[Any, tuple[Any, ...]]:
    """Add what a weight is stored as, and return the operator and its operands.

    Converters tell operands by their names: indices, and a look-up table.
    """
    if isinstance(found, Linear):
        names = (f"linear_{index}_data", f"linear_{index}_scale")
        module.register_buffer(names[0], torch.from_numpy(found.data))
        module.register_buffer(names[1], torch.from_numpy(found.scale).float())
        shift_scale = torch.ops.coreai.constexpr_blockwise_shift_scale.default
        return shift_scale, (*names, None, None, torch.int8)
    names = (f"palette_{index}_indices", f"palette_{index}_lut")
    axes = [1] * (found.indices.ndim - 1)
    table = found.values.reshape(len(found.values), *axes, -1, 1)
    module.register_buffer(names[0], torch.from_numpy(found.indices))
    module.register_buffer(names[1], torch.from_numpy(table).float())
    return torch.ops.coreai.lut_to_dense.default, (*names, 0)
