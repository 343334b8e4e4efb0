"""Backends run the graphs of a bundle; `select` decides which variant runs on which of them.

A backend is anything with the shape of `Backend`: tests use `mvsdk.backends.fake.Fake`, which needs
no graph at all, and other packages offer theirs as entry points of the group `mvsdk.backends`. A
session takes and gives float32 (and int32 token numbers, uint8 pictures): the types and
quantization of a graph's own inputs and outputs are the backend's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mvsdk.backends._advice import slow_note
from mvsdk.backends._registry import default_backends, find_backend, further_backends
from mvsdk.backends._selection import Selection, select
from mvsdk.backends._speed import Place, Placing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Variant

__all__ = [
    "Backend",
    "Place",
    "Placing",
    "Selection",
    "Session",
    "default_backends",
    "find_backend",
    "further_backends",
    "select",
    "slow_note",
]


class Session(Protocol):
    """One loaded graph."""

    @property
    def run_s(self) -> float:
        """Seconds spent inside the native runtime since the session was made."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: One array for every input of the variant, in the shape that its manifest says.
                Float32 for the type `real`, int32 for `integer`, uint8 for `pixels`, whatever the
                graph takes.

        Returns:
            One array for every output of the variant, of these types too.

        Raises:
            InputError: If an array is missing or has another shape.
            BackendError: If the runtime fails, or gives pixels that are no numbers.
        """
        ...

    def close(self) -> None:
        """Give the graph's memory back; a second call does nothing."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A runtime that can load some variants; one that is `Placing` too says where it runs them."""

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        ...

    def describe(self) -> str:
        """Return one line for people: what runs the graphs, and what its times stand for."""
        ...

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can. Loads nothing."""
        ...

    def load(self, bundle: Bundle, variant: Variant) -> Session:
        """Load one graph.

        Raises:
            BundleError: If a file of the variant is missing or damaged.
            BackendError: If the runtime is missing or refuses the graph.
        """
        ...
