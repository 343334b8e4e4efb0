"""The checker as a backend of the runtime: makes clips of Core ML variants on any system."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from mvsdk.backends._graph import GraphSession, label_of
from mvsdk.bundle import Bundle
from mvsdk.errors import BackendError, MvsdkError
from mvsdk.manifest import Variant

NAME = "coreml-checker"


class CoreMLChecker:
    """Evaluates .mlpackage folders operation by operation, on the CPU."""

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return NAME

    def describe(self) -> str:
        """Return one line for people."""
        return "checker of Core ML packages on this CPU: not a phone's times"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        if variant.format != "coreml":
            return f"the checker runs the format coreml, not {variant.format}"
        missing = [x for x in ("torch", "coremltools") if importlib.util.find_spec(x) is None]
        if missing:
            return f"the checker needs {', '.join(missing)}; run: pip install 'mvsdk[apple]'"
        return None

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        from mvsdk_export.checker.program import load_program

        label = label_of(variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label}: {reason}")
        program = load_program(bundle.model(variant), variant.function)
        names = [spec.name for spec in variant.outputs]

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            try:
                made = program.run(feeds)
            except MvsdkError as exc:
                raise BackendError(f"{label} failed to run: {exc}") from exc
            return [made[name] for name in names]

        return GraphSession(label, variant.inputs, variant.outputs, run)
