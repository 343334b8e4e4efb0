"""ExecuTorch's own runtime: runs `executorch` variants whose operators XNNPACK takes.

It is the runtime that phones have, here on this machine's CPU. What the Core ML delegate takes runs
on Apple's systems, what the QNN delegate takes on a phone.
"""

from __future__ import annotations

import importlib
import platform
import re
import warnings
from typing import TYPE_CHECKING, Any

from mvsdk._installed import installed_version, pip_install
from mvsdk.backends._graph import (
    GraphSession,
    check_request,
    check_signature,
    check_variant,
    first_line,
    label_of,
)
from mvsdk.backends.native_output import captured_native_output
from mvsdk.errors import BackendError
from mvsdk.manifest import WEIGHTS_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mvsdk.backends._speed import Place
    from mvsdk.bundle import Bundle
    from mvsdk.manifest import TensorSpec, Variant

_DISTRIBUTION = "executorch"
_METHOD = "forward"
_REGISTERED = {"xnnpack": "XnnpackBackend", "coreml": "CoreMLBackend"}
"""Delegate -> what the runtime calls it."""
# Numbers of c10::ScalarType.
_TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    27: "uint16",
}
_LOGGED = re.compile(r"\[\w+\.(?:cpp|h):\d+\] (.*)")
_HARMLESS = "[cpuinfo_utils.cpp:"


class ExecuTorch:
    """The Python bindings of ExecuTorch."""

    def __repr__(self) -> str:
        """Return how it is made."""
        return "ExecuTorch()"

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "executorch"

    def describe(self) -> str:
        """Return one line for people: version, and that this machine runs the programs."""
        place = "this Mac" if _is_mac() else "this machine's CPU, XNNPACK"
        return f"ExecuTorch {installed_version(_DISTRIBUTION)} on {place}"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        check_variant(variant)
        if variant.format != "executorch":
            return f"ExecuTorch runs the format executorch, not {variant.format}"
        if variant.delegate == "qnn":
            return "the delegate qnn runs on a phone with a Snapdragon chip; use xnnpack here"
        if variant.delegate == "coreml" and not _is_mac():
            return "the delegate coreml runs on Apple's systems; use xnnpack here"
        if installed_version(_DISTRIBUTION) is None:
            return f"target executorch needs the package executorch; run: {_install()}"
        return None

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant: the CPU, unless the delegate hands it to Core ML."""
        check_variant(variant)
        return "accelerator" if variant.delegate == "coreml" else "cpu"

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        check_request(bundle, variant)
        label = label_of(variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label}: {reason}")
        path = bundle.model(variant)
        weights = [bundle.file(ref) for ref in variant.files if ref.path.endswith(WEIGHTS_SUFFIX)]
        torch, runtime = _import_runtime()
        _check_delegate(runtime, variant)
        printed: list[str] = []
        try:
            with captured_native_output() as printed:
                program = _load_program(runtime, path, *weights)
                meta = program.load_method(_METHOD).metadata
                inputs = _signature(variant.inputs, meta.num_inputs(), meta.input_tensor_meta)
                outputs = _signature(variant.outputs, meta.num_outputs(), meta.output_tensor_meta)
        except Exception as exc:  # the runtime has no class of its own
            raise BackendError(_explain(variant, exc, printed)) from exc
        check_signature(label, "input", variant.inputs, inputs)
        check_signature(label, "output", variant.outputs, outputs)

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            # PyTorch warns of arrays that are read-only, though nothing here writes to them.
            values = (feeds[spec.name] for spec in variant.inputs)
            given = [torch.from_numpy(x if x.flags.writeable else x.copy()) for x in values]
            printed: list[str] = []
            try:
                # The program keeps its methods, but they do not keep the program.
                with captured_native_output() as printed:
                    made = program.load_method(_METHOD).execute(given)
                return [tensor.numpy() for tensor in made]
            except Exception as exc:  # as above
                raise BackendError(f"{label} failed to run: {_reason(exc, printed)}") from exc

        return GraphSession(label, variant.inputs, variant.outputs, run)


def _install(*options: str) -> str:
    """Return the command that installs the runtime and PyTorch, which it does not ask for."""
    return pip_install(*options, _DISTRIBUTION, "torch")


def _is_mac() -> bool:
    return platform.system() == "Darwin"


def _import_runtime() -> tuple[Any, Any]:
    """Import the runtime, which takes and gives tensors of PyTorch, and so needs all of it.

    Returns:
        The module `torch` and the runtime.

    Raises:
        BackendError: If one of them is missing or broken.
    """
    try:
        # It warns of its own beta interface, and of much else that it imports.
        with captured_native_output(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch = importlib.import_module("torch")
            runtime = importlib.import_module("executorch.runtime").Runtime.get()
    except (ImportError, OSError) as exc:  # OSError: a shared library of another release
        raise BackendError(
            f"executorch {installed_version(_DISTRIBUTION)} cannot be imported "
            f"({first_line(exc)}); run: {_install('--force-reinstall')}"
        ) from exc
    return torch, runtime


def _check_delegate(runtime: Any, variant: Variant) -> None:
    wanted = _REGISTERED[variant.delegate or "xnnpack"]
    registered: list[str] = runtime.backend_registry.registered_backend_names
    if wanted not in registered:
        raise BackendError(
            f"executorch {installed_version(_DISTRIBUTION)} is built without {wanted}, with "
            f"{', '.join(registered) or 'no delegate'}; run: {_install('--force-reinstall')}"
        )


def _load_program(runtime: Any, path: Path, weights: Path | None = None) -> Any:
    program = runtime.load_program(path, data_path=weights)
    if _METHOD not in program.method_names:
        raise KeyError(f"no method {_METHOD}, only {', '.join(sorted(program.method_names))}")
    return program


def _signature(
    specs: Sequence[TensorSpec], count: int, meta: Callable[[int], Any]
) -> dict[str, tuple[Sequence[int | None], str]]:
    """Return one side of a program, whose tensors have places, and no names."""
    names = [spec.name for spec in specs]
    names += [f"number {place}" for place in range(len(names), count)]
    found = [meta(place) for place in range(count)]
    return {
        name: (tensor.sizes(), _TYPES.get(tensor.dtype(), f"type {tensor.dtype()}"))
        for name, tensor in zip(names, found, strict=False)
    }


def _explain(variant: Variant, exc: Exception, printed: Sequence[str]) -> str:
    return (
        f"ExecuTorch cannot load {label_of(variant)}: {_reason(exc, printed)}; "
        f"made with executorch {variant.tools.get(_DISTRIBUTION, 'unknown')}, here is "
        f"{installed_version(_DISTRIBUTION)}; update executorch, or export the bundle again"
    )


def _reason(exc: Exception, printed: Sequence[str]) -> str:
    """Return what failed: the exception has a number, the log has the reason."""
    logged = [line for line in printed if not line.startswith(_HARMLESS)]
    reasons = [found[1] for line in logged if (found := _LOGGED.match(line))]
    return "; ".join([first_line(exc), *reasons[:1]])
