"""What the ONNX Runtime and QNN backends share: the import and the session itself."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mvsdk._installed import pip_install
from mvsdk.backends._graph import GraphSession, check_signature, first_line, label_of
from mvsdk.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mvsdk.manifest import Variant

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
"""ONNX Runtime's names of types that are not those of numpy in brackets."""


def import_onnxruntime() -> Any:
    """Import ONNX Runtime when it is first needed: it costs a tenth of a second.

    Raises:
        BackendError: If it is missing or broken.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as exc:
        raise BackendError(
            f"onnxruntime cannot be imported ({exc}); "
            f"run: {pip_install('--force-reinstall', 'onnxruntime')}"
        ) from exc


def open_graph(session: Any, variant: Variant, explain: Callable[[str], str] = str) -> GraphSession:
    """Wrap an `onnxruntime.InferenceSession` whose inputs and outputs are as the manifest says.

    Args:
        session: The native session.
        variant: What the manifest says of it.
        explain: Turns the runtime's message about a failed run into a cause and a next step.

    Raises:
        BundleError: If a name, shape or type of the graph differs from the manifest.
    """
    label = label_of(variant)
    check_signature(label, "input", variant.inputs, _signature(session.get_inputs()))
    check_signature(label, "output", variant.outputs, _signature(session.get_outputs()))
    names = [spec.name for spec in variant.outputs]

    def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        try:
            return session.run(names, feeds)
        except Exception as exc:  # ONNX Runtime has an exception class of its own per status code
            raise BackendError(f"{label} failed to run: {explain(first_line(exc))}") from exc

    return GraphSession(label, variant.inputs, variant.outputs, run)


def _signature(tensors: Sequence[Any]) -> dict[str, tuple[Sequence[int | None], str]]:
    return {tensor.name: (tensor.shape, _dtype(tensor.type)) for tensor in tensors}


def _dtype(type_: str) -> str:
    return _TYPES.get(type_, type_.removeprefix("tensor(").removesuffix(")"))
