"""A backend whose graphs are Python functions: pipelines run in tests without any model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsdk._arguments import check_callable, check_kind, check_text
from mvsdk.backends._graph import GraphSession, check_request, check_variant, component_of
from mvsdk.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Variant

    Function = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


class Fake:
    """Runs functions in place of graphs, and remembers what was loaded and let go.

    Attributes:
        events: `("load", component)` and `("close", component)`, in the order they happened.
    """

    def __init__(self, functions: Mapping[str, Function]) -> None:
        """Take one function per component.

        Args:
            functions: Component name to a function from named inputs to named outputs. Both sides
                have the types that the manifest says, as a real graph's would.

        Raises:
            InputError: If they are no functions by name.
        """
        check_kind("functions", functions, Mapping, how="pass a dict: component to function")
        for component, function in functions.items():
            check_text("a component of functions", component)
            check_callable(f"the function of {component}", function)
        self._functions = dict(functions)
        self.events: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        """Return the components that it has functions for, in one line."""
        return f"Fake({', '.join(self._functions)})"

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "fake"

    @property
    def open_components(self) -> list[str]:
        """Names of the components that are loaded now, in the order they were loaded."""
        loaded: list[str] = []
        for event, component in self.events:
            if event == "load":
                loaded.append(component)
            else:
                loaded.remove(component)
        return loaded

    def describe(self) -> str:
        """Return one line for people."""
        return "fake backend (Python functions)"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return None: everything runs."""
        check_variant(variant)
        return None

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Return a session that calls the function of the variant's component.

        Raises:
            BackendError: If there is no function for the component.
        """
        check_request(bundle, variant)
        component, _ = component_of(bundle, variant)
        function = self._functions.get(component)
        if function is None:
            raise BackendError(f"fake backend has no function for {component}; pass one")

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            results = function(feeds)
            return [np.asarray(results[spec.name], spec.dtype) for spec in variant.outputs]

        self.events.append(("load", component))
        return GraphSession(
            component,
            variant.inputs,
            variant.outputs,
            run,
            close=lambda: self.events.append(("close", component)),
        )
