"""Memory that converters would hold and do not have to: a lowering shall fit beside an editor."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from unittest import mock

from torch import Tensor, nn

_M_MMAP_THRESHOLD = -3
_LEAN_BYTES = 1 << 20
_USUAL_BYTES = 32 << 20
"""To where glibc raises the threshold by itself when large blocks come and go."""


@contextlib.contextmanager
def lean_heap() -> Iterator[None]:
    """Let large blocks go back to the system as soon as they are freed, where C is glibc's.

    Weights that are converted one by one leave holes in the heap otherwise, which fit no other;
    `benchmarks/lowering.py` measures what is left. Not for computing: activations are large blocks
    too, and a network whose blocks come and go with every operator runs slower.
    """
    _set_threshold(_LEAN_BYTES)
    try:
        yield
    finally:
        _set_threshold(_USUAL_BYTES)


def _set_threshold(size: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, size)


@contextlib.contextmanager
def shared_weights() -> Iterator[None]:
    """Let deep copies share the tensors of what they copy.

    ExecuTorch copies a program, weights and all, before each of its passes over it. No pass changes
    a weight in place; one that wants another makes it.
    """

    def same(self: Tensor, memo: object) -> Tensor:
        return self

    with (
        mock.patch.object(Tensor, "__deepcopy__", same),
        mock.patch.object(nn.Parameter, "__deepcopy__", same),
    ):
        yield
