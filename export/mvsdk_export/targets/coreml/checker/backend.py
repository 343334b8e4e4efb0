"""The checker as a backend of the runtime: makes clips of Core ML variants on any system."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mvsdk._installed import toolchain_install
from mvsdk._text import quoted
from mvsdk.backends._graph import GraphSession, check_signature, label_of
from mvsdk.bundle import Bundle
from mvsdk.errors import BackendError, BundleError, MvsdkError
from mvsdk.manifest import Variant

if TYPE_CHECKING:
    from mvsdk.backends._speed import Place
    from mvsdk_export.targets.coreml.checker.delegated import Borders
    from mvsdk_export.targets.coreml.checker.program import Program

NAME = "coreml-checker"


class CoreMLChecker:
    """Evaluates .mlpackage folders operation by operation on the CPU, inside .pte files too."""

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return NAME

    def describe(self) -> str:
        """Return one line for people.

        Raises:
            BackendError: If what it is made of is not installed.
        """
        if (reason := _missing("torch", "coremltools")) is not None:
            raise BackendError(reason)
        return "checker of Core ML packages on this CPU: not a phone's times"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        delegated = variant.delegate == "coreml"
        if variant.format != "coreml" and not delegated:
            made = f"delegate {variant.delegate}" if variant.delegate else variant.format
            return f"the checker runs the format coreml and the delegate coreml, not {made}"
        return _missing("torch", "coremltools", *(["executorch"] if delegated else []))

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant: software in place of Apple's hardware."""
        return "emulator"

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        from mvsdk_export.targets.coreml.checker.delegated import Borders, extract_package
        from mvsdk_export.targets.coreml.checker.program import load_program

        label = label_of(variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label}: {reason}")
        given = [spec.name for spec in variant.inputs]
        names = [spec.name for spec in variant.outputs]
        if variant.delegate is None:
            program = load_program(bundle.model(variant), variant.function)
            borders = Borders(inputs=tuple(given), outputs=tuple(names))
            for side, specs, found in (
                ("input", variant.inputs, program.inputs),
                ("output", variant.outputs, program.outputs),
            ):
                check_signature(label, side, specs, {x.name: (x.shape, x.dtype) for x in found})
        else:
            with tempfile.TemporaryDirectory() as folder:
                path, borders = extract_package(bundle.model(variant), Path(folder))
                program = load_program(path)
            _check_signatures(label, variant, program, borders)

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            named = zip(borders.inputs, given, strict=True)
            try:
                made = program.run({inside: feeds[name] for inside, name in named})
            except MvsdkError as exc:
                raise BackendError(f"{label} failed to run: {exc}") from exc
            return [made[name] for name in borders.outputs]

        return GraphSession(label, variant.inputs, variant.outputs, run)


def _check_signatures(label: str, variant: Variant, program: Program, borders: Borders) -> None:
    """Check a package that has names of its own for what a program takes and gives."""
    for names, known in ((borders.inputs, program.inputs), (borders.outputs, program.outputs)):
        if missing := [name for name in names if name not in [item.name for item in known]]:
            raise BundleError(
                f"{label}: the program names {quoted(missing[0])}, which the package in it does "
                "not have; export the bundle again"
            )
    wanted = len(variant.inputs), len(variant.outputs)
    found = len(borders.inputs), len(borders.outputs)
    if wanted != found:
        raise BackendError(
            f"{label} takes {found[0]} inputs and gives {found[1]} outputs, its manifest says "
            f"{wanted[0]} and {wanted[1]}; export it again"
        )


def _missing(*modules: str) -> str | None:
    """Return what is not installed, with the command that installs it; None if all is there."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    extras = ("apple", "executorch") if "executorch" in modules else ("apple",)
    return f"the checker needs {', '.join(missing)}; run: {toolchain_install(*extras)}"
