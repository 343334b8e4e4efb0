"""How networks are written for Core AI: layers, products and attention as the Neural Engine wants.

Apple publishes what it wants ("Neural Engine rules", github.com/apple/coreai-models, skills/
model-authoring/references, August 2026): 1x1 convolutions over `(B, C, 1, N)` in place of matrix
products, attention head by head, as there is no fused one, a sigmoid in place of a hyperbolic
tangent or a SiLU, normalisations left whole, no tensor of more than five axes. On a CPU, Core AI's
convolutions are more exact in float16 than its matrix products, and several times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from mvsdk_export.targets.coreai.tools import import_coreai

_OPS = torch.ops.aten


def write_convolutions_(module: fx.GraphModule) -> None:
    """Write linear layers as 1x1 convolutions, in place; their weights become `(D, C, 1, 1)`.

    A product with a weight would be lowered to one of batches, for which the weight is stored once
    for each element of the batch.
    """
    weights: dict[str, str] = {}
    known = module.state_dict()
    for node in list(module.graph.nodes):
        if node.target is not _OPS.linear.default:
            continue
        source = str(node.args[1].target)
        if source not in known:  # computed from an input
            continue
        if source not in weights:
            weights[source] = f"pointwise_{len(weights)}"
            kernel = known[source][:, :, None, None]  # of the same memory
            module.register_buffer(weights[source], kernel)
        with module.graph.inserting_before(node):
            made = _convolve(module.graph, node, weights[source])
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
    tidy_(module)


def tidy_(module: fx.GraphModule) -> None:
    """Drop what the graph of a module no longer uses, weights included, in place."""
    module.graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in module.state_dict():
        if name not in used:
            owner, _, own = name.rpartition(".")
            delattr(module.get_submodule(owner), own)


def _convolve(graph: fx.Graph, node: fx.Node, weight: str) -> fx.Node:
    """Insert the convolution that does what a linear layer over `(..., N, C)` does."""
    source, _, *others = node.args
    assert isinstance(source, fx.Node)
    *lead, width = source.meta["val"].shape
    is_sequence = len(lead) == 2
    call = graph.call_function
    x = source
    if not is_sequence:
        rows = lead[-1] if lead else 1
        x = call(_OPS.reshape.default, (x, [math.prod(lead[:-1]), rows, width]))
    x = call(_OPS.unsqueeze.default, (call(_OPS.transpose.int, (x, 1, 2)), 2))  # (B, C, 1, N)
    x = call(_OPS.conv2d.default, (x, graph.get_attr(weight), *others))
    x = call(_OPS.transpose.int, (call(_OPS.squeeze.dim, (x, 2)), 1, 2))
    return x if is_sequence else call(_OPS.reshape.default, (x, list(node.meta["val"].shape)))


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what operators are made of: Apple's own table, with two entries of ours."""
    table = import_coreai("coreai_torch").get_decomp_table()
    table[_OPS.silu.default] = _silu
    table[_OPS.scaled_dot_product_attention.default] = _attend
    return table


def _silu(x: Tensor) -> Tensor:
    """Write the definition out: Core AI's own operator is computed in float32, off the engine."""
    return x * torch.sigmoid(x)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attend head by head: query `(B, heads, N, d)`, key and value `(B, heads, L, d)`.

    What no network here does is left to Core AI's operator of the same name.
    """
    plain = attn_mask is None and not (dropout_p or is_causal or enable_gqa)
    if not plain or query.dim() != 4:
        return NotImplemented
    query = query * (query.shape[3] ** -0.5 if scale is None else scale)
    heads = zip(*(x.split(1, dim=1) for x in (query, key, value)), strict=True)
    return torch.cat([(q @ k.transpose(2, 3)).softmax(dim=3) @ v for q, k, v in heads], dim=1)
