"""Captured graphs in the operators that XNNPACK takes.

ExecuTorch's portable kernels run what XNNPACK does not take, slowly and in the order of the
program, and every operator of theirs cuts a delegate's graph in two. So what only moves elements is
written as slices and reshapes, means and sums as products with constants, and numbers beside
tensors as tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from mvsdk_export.graphs.capture import attribute_of

_OPS = torch.ops.aten
_ELEMENTWISE = (_OPS.add.Tensor, _OPS.sub.Tensor, _OPS.mul.Tensor, _OPS.div.Tensor)


def write_for_xnnpack_(module: fx.GraphModule) -> None:
    """Rewrite a captured graph for XNNPACK, in place."""
    _Writer(module).write_all()
    module.graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()


class _Writer:
    """Writes operators in place of others."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module, self._graph = module, module.graph
        self._constants: dict[tuple[float, tuple[int, ...]], str] = {}
        for node in module.graph.nodes:
            if "val" not in node.meta and node.op in ("get_attr", "call_function"):
                node.meta["val"] = self._value(node)  # of what capturing wrote

    def write_all(self) -> None:
        """Write every node that has another form."""
        for node in list(self._graph.nodes):
            write = _FORMS.get(node.target) if node.op == "call_function" else None
            if write is None:
                continue
            with self._graph.inserting_before(node):
                made = write(self, node)
            if made is not None and made is not node:
                node.replace_all_uses_with(made)

    def parts(self, node: fx.Node) -> None:
        """Slice what is split."""
        source = node.args[0]
        axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        starts = [0]
        for part in node.meta["val"]:
            starts.append(starts[-1] + part.shape[axis])
        for user in list(node.users):
            place = user.args[1]
            assert isinstance(place, int)
            sliced = self._call(_OPS.slice.Tensor, source, axis, starts[place], starts[place + 1])
            user.replace_all_uses_with(sliced)

    def select(self, node: fx.Node) -> fx.Node:
        """Slice one place and take its axis away."""
        source, axis, place = node.args
        assert isinstance(source, fx.Node)
        place %= source.meta["val"].shape[axis]  # type: ignore[operator, index]
        part = self._call(_OPS.slice.Tensor, source, axis, place, place + 1)
        return self._reshaped(part, _shape(node))

    def reshape(self, node: fx.Node) -> fx.Node:
        """Write axes that come, go or are joined as a reshape."""
        return self._reshaped(node.args[0], _shape(node))

    def repeat(self, node: fx.Node) -> fx.Node | None:
        """Repeat along axes of one by a product with ones."""
        if not _is_float(node):
            return None
        return self._repeated(node.args[0], _shape(node))

    def product(self, node: fx.Node) -> fx.Node | None:
        """Multiply matrices in one batch of them."""
        a, b = node.args
        assert isinstance(a, fx.Node)
        assert isinstance(b, fx.Node)
        left, right, shape = _shape(a), _shape(b), _shape(node)
        if min(len(left), len(right)) < 3:
            return None
        batch = shape[:-2]
        count = math.prod(batch)
        operands: list[fx.Node] = []
        for operand, own in ((a, left), (b, right)):
            whole = operand
            if own[:-2] != batch:
                whole = self._repeated(operand, [*batch, *own[-2:]])
            operands.append(self._reshaped(whole, [count, *own[-2:]]))
        return self._reshaped(self._call(_OPS.bmm.default, *operands), shape)

    def total(self, node: fx.Node) -> fx.Node | None:
        """Sum or take the mean over axes by a product with a constant column."""
        source, axes = node.args[:2]
        assert isinstance(source, fx.Node)
        shape = _shape(source)
        if not _is_float(node) or not _is_float(source) or not axes:
            return None
        gone = sorted(axis % len(shape) for axis in axes)  # type: ignore[union-attr, operator]
        is_mean = node.target is _OPS.mean.dim
        keeps = len(node.args) > 2 and bool(node.args[2])
        if is_mean and keeps and len(shape) == 4 and gone == [2, 3]:
            return None  # XNNPACK has this one
        kept = [axis for axis in range(len(shape)) if axis not in gone]
        moved = source
        if gone != list(range(len(kept), len(shape))):
            moved = self._call(_OPS.permute.default, source, [*kept, *gone])
        count = math.prod(shape[axis] for axis in gone)
        row = self._reshaped(moved, [math.prod(shape) // count, count])
        return self._reshaped(self._weighted(row, 1.0 / count if is_mean else 1.0), _shape(node))

    def layer_norm(self, node: fx.Node) -> fx.Node | None:
        """Normalise over the last axis by means, which are products."""
        source, sizes = node.args[:2]
        weight, bias, epsilon = (
            node.args[place] if len(node.args) > place else node.kwargs.get(name, default)
            for place, name, default in ((2, "weight", None), (3, "bias", None), (4, "eps", 1e-5))
        )
        assert isinstance(source, fx.Node)
        assert isinstance(epsilon, float)
        shape = _shape(source)
        width = shape[-1]
        if sizes != [width]:
            return None
        rows = self._reshaped(source, [math.prod(shape[:-1]), width])
        away = self._call(_OPS.sub.Tensor, rows, self._weighted(rows, 1.0 / width))
        square = self._call(_OPS.mul.Tensor, away, away)
        spread = self._weighted(square, 1.0 / width)
        spread = self._call(_OPS.add.Tensor, spread, self._constant(epsilon))
        made = self._call(_OPS.mul.Tensor, away, self._call(_OPS.rsqrt.default, spread))
        if weight is not None:
            made = self._call(_OPS.mul.Tensor, made, weight)
        if bias is not None:
            made = self._call(_OPS.add.Tensor, made, bias)
        return self._reshaped(made, shape)

    def softmax(self, node: fx.Node) -> fx.Node | None:
        """Take it over the rows of a matrix.

        Of four axes, ExecuTorch may move the second to the end for a convolution nearby, and
        XNNPACK's softmax is over whatever is last.
        """
        source, axis = node.args[:2]
        assert isinstance(axis, int)
        if not _is_float(source):
            return None
        last = len(_shape(node)) - 1
        moved = source
        if axis % (last + 1) != last:
            moved = self._call(_OPS.transpose.int, source, axis, last)
        shape = _shape(moved)
        rows = self._reshaped(moved, [math.prod(shape[:-1]), shape[-1]])
        made = self._reshaped(self._call(_OPS.softmax.int, rows, 1), shape)
        return made if moved is source else self._call(_OPS.transpose.int, made, axis, last)

    def linear(self, node: fx.Node) -> fx.Node | None:
        """Take the rows of a matrix: of four axes, the last could be moved as in `softmax`."""
        source = node.args[0]
        shape = _shape(source)
        if len(shape) != 4:
            return None
        rows = self._reshaped(source, [math.prod(shape[:-1]), shape[-1]])
        made = self._call(_OPS.linear.default, rows, *node.args[1:])
        return self._reshaped(made, _shape(node))

    def enlarge(self, node: fx.Node) -> fx.Node | None:
        """Repeat pixels: the nearest of those that were, in whole factors."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        *outer, height, width = _shape(source)
        tall, wide = (
            new // old for new, old in zip(_shape(node)[-2:], (height, width), strict=True)
        )
        if _shape(node) != [*outer, height * tall, width * wide]:
            return None
        scales = node.args[2] if len(node.args) > 2 else None
        if scales is not None and list(scales) != [tall, wide]:  # type: ignore[arg-type]
            return None  # which pixel is the nearest follows from the scale, not from the sizes
        apart = self._reshaped(source, [*outer, height, 1, width, 1])
        return self._reshaped(
            self._repeated(apart, [*outer, height, tall, width, wide]), _shape(node)
        )

    def stride(self, node: fx.Node) -> fx.Node | None:
        """Slice in steps by a reshape and a slice of one."""
        if len(node.args) < 5:
            return None  # in steps of one
        source, axis, start, _, step = node.args
        assert isinstance(axis, int)
        assert isinstance(start, int)
        assert isinstance(step, int)
        shape = _shape(source)
        axis %= len(shape)
        size = shape[axis]
        if step == 1 or size % step or _shape(node)[axis] != size // step or not 0 <= start < step:
            return None
        apart = self._reshaped(source, [*shape[:axis], size // step, step, *shape[axis + 1 :]])
        part = self._call(_OPS.slice.Tensor, apart, axis + 1, start, start + 1)
        return self._reshaped(part, _shape(node))

    def round(self, node: fx.Node) -> fx.Node | None:
        """Round by a floor, halves up, where the rest is computed from it: a sum stays the same.

        What else is rounded, as pixels are, has to be so as by every target: halves to even.
        """
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if not all(_takes_rest(user, source, node) for user in node.users):
            return None
        half = self._constant(0.5)
        return self._call(_OPS.floor.default, self._call(_OPS.add.Tensor, node.args[0], half))

    def filled(self, node: fx.Node) -> fx.Node | None:
        """Hold what is filled with one number."""
        value = node.args[1] if node.target is _OPS.full_like.default else 0
        if not _is_float(node) or not isinstance(value, int | float):
            return None
        return self._constant(float(value), _shape(node))

    def number(self, node: fx.Node) -> None:
        """Hold a number that stands beside a tensor."""
        if len(node.args) != 2 or node.kwargs or not _is_float(node) or not _shape(node):
            return
        node.args = tuple(
            self._constant(float(item)) if isinstance(item, int | float) else item
            for item in node.args
        )

    def _weighted(self, rows: fx.Node, weight: float) -> fx.Node:
        """Return the weighted sum of every row of a matrix, as a column."""
        column = self._constant(weight, (_shape(rows)[1], 1))
        return self._call(_OPS.mm.default, rows, column)

    def _repeated(self, source: Any, shape: Sequence[int]) -> fx.Node:
        """Return a tensor whose axes of one are as long as wanted."""
        old = [1] * (len(shape) - len(_shape(source))) + _shape(source)
        source = self._reshaped(source, old)
        if old == list(shape):
            return source
        ones = self._constant(1.0, [1 if a == b else b for a, b in zip(old, shape, strict=True)])
        return self._call(_OPS.mul.Tensor, source, ones)

    def _reshaped(self, source: Any, shape: Sequence[int]) -> fx.Node:
        if _shape(source) == list(shape):
            return source
        return self._call(_OPS.reshape.default, source, list(shape))

    def _constant(self, number: float, shape: Sequence[int] = (1,)) -> fx.Node:
        """Return a tensor that is one number everywhere; equal ones are held once."""
        key = (number, tuple(shape))
        if key not in self._constants:
            self._constants[key] = f"number_{len(self._constants)}"
            self._module.register_buffer(self._constants[key], torch.full(key[1], number))
        made = self._graph.get_attr(self._constants[key])
        made.meta["val"] = self._value(made)
        return made

    def _call(self, target: Any, *args: Any) -> fx.Node:
        node = self._graph.call_function(target, args)
        node.meta["val"] = self._value(node)
        return node

    def _value(self, node: fx.Node) -> Any:
        """Return what has the shape and type of a node's value."""
        if node.op == "get_attr":
            return attribute_of(self._module, str(node.target))
        args, kwargs = map_arg((node.args, node.kwargs), lambda item: item.meta["val"].to("meta"))
        return node.target(*args, **kwargs)  # type: ignore[operator]


_FORMS: Mapping[Any, Callable[[_Writer, fx.Node], fx.Node | None]] = {
    **dict.fromkeys(
        (_OPS.chunk.default, _OPS.split_with_sizes.default, _OPS.split.Tensor), _Writer.parts
    ),
    **dict.fromkeys(
        (
            _OPS.squeeze.dim,
            _OPS.squeeze.dims,
            _OPS.unsqueeze.default,
            _OPS.flatten.using_ints,
        ),
        _Writer.reshape,
    ),
    **dict.fromkeys(_ELEMENTWISE, _Writer.number),
    _OPS.select.int: _Writer.select,
    _OPS.expand.default: _Writer.repeat,
    _OPS.matmul.default: _Writer.product,
    _OPS.mean.dim: _Writer.total,
    _OPS.sum.dim_IntList: _Writer.total,
    _OPS.layer_norm.default: _Writer.layer_norm,
    _OPS.softmax.int: _Writer.softmax,
    _OPS.linear.default: _Writer.linear,
    _OPS.upsample_nearest2d.vec: _Writer.enlarge,
    _OPS.slice.Tensor: _Writer.stride,
    _OPS.round.default: _Writer.round,
    _OPS.full_like.default: _Writer.filled,
    _OPS.zeros_like.default: _Writer.filled,
}


def _takes_rest(user: fx.Node, source: fx.Node, rounded: fx.Node) -> bool:
    """Tell `x - round(x)`, and `x - round(x * a) / a`."""
    if user.target is _OPS.sub.Tensor:
        return user.args == (source, rounded)
    scales = (_OPS.mul.Tensor, _OPS.div.Tensor)
    if source.target not in scales or user.target not in scales:
        return False
    return any(x.target is _OPS.sub.Tensor and x.args == (source.args[0], user) for x in user.users)


def _is_float(node: Any) -> bool:
    return node.meta["val"].is_floating_point()


def _shape(node: Any) -> list[int]:
    return list(node.meta["val"].shape)
