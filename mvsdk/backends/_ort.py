"""What the ONNX Runtime and QNN backends share: the import and the session itself."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mvsdk.backends._graph import GraphSession
from mvsdk.errors import BackendError, BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from mvsdk.manifest import TensorSpec, Variant

_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "uint8": "tensor(uint8)",
    "uint16": "tensor(uint16)",
    "int8": "tensor(int8)",
    "int16": "tensor(int16)",
}


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
            "run: pip install --force-reinstall onnxruntime"
        ) from exc


def label_of(variant: Variant) -> str:
    """Return what error messages call a graph: its folder, such as `unet/onnx-fp32`."""
    folders = variant.model.split("/")[:-1]
    return "/".join(folder for folder in folders if folder != "components") or variant.id


def open_graph(session: Any, variant: Variant, explain: Callable[[str], str] = str) -> GraphSession:
    """Wrap an `onnxruntime.InferenceSession` whose borders are as the manifest says.

    Args:
        session: The native session.
        variant: What the manifest says of it.
        explain: Turns the runtime's message about a failed run into a cause and a next step.

    Raises:
        BundleError: If a name, shape or type of the graph differs from the manifest.
    """
    label = label_of(variant)
    _check_border(label, "input", variant.inputs, session.get_inputs())
    _check_border(label, "output", variant.outputs, session.get_outputs())
    names = [spec.name for spec in variant.outputs]

    def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
        try:
            return session.run(names, feeds)
        except Exception as exc:  # ONNX Runtime has an exception class of its own per status code
            raise BackendError(f"{label} failed to run: {explain(first_line(exc))}") from exc

    return GraphSession(label, variant.inputs, variant.outputs, run)


def first_line(exc: BaseException) -> str:
    """Return the first line of an exception's text without ONNX Runtime's prefix."""
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return lines[0].removeprefix("[ONNXRuntimeError] : ")


def _check_border(
    label: str, side: str, specs: Sequence[TensorSpec], tensors: Sequence[Any]
) -> None:
    found = {tensor.name: (list(tensor.shape), tensor.type) for tensor in tensors}
    told = {spec.name: (list(spec.shape), _TYPES[spec.dtype]) for spec in specs}
    if found != told:
        raise BundleError(
            f"{label}: the graph's {side}s are {found}, the manifest says {told}; "
            "export the bundle again"
        )
