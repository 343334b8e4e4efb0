"""QNN through ONNX Runtime: runs `snapdragon` variants, which are compiled for one chip.

A variant is an EPContext model (`*_ctx.onnx`) beside the context binary that Qualcomm's compiler
made. On a Snapdragon machine its NPU runs it; on x86-64 Qualcomm's HTP emulator does, bit by bit
and slowly: right results, and times that say nothing about a phone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._installed import pip_install
from mvsdk.backends._causes import find_cause
from mvsdk.backends._graph import check_request, check_variant, first_line, label_of
from mvsdk.backends._ort import import_onnxruntime, open_graph
from mvsdk.backends.native_output import captured_native_output
from mvsdk.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mvsdk.backends._graph import GraphSession
    from mvsdk.backends._speed import Place
    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Chip, Format, Variant

_PROVIDER = "QNN"
_FORMAT: Format = "qnn_context"
_DISTRIBUTION = "onnxruntime-qnn"
_REGISTER = threading.Lock()
_X86 = frozenset({"x86_64", "amd64"})
_ERRORS_ONLY = 3
_SOC = Path("/sys/devices/soc0/machine")
"""Where Qualcomm's kernels write the name of the chip, such as SM8650."""


class Qnn:
    """The QNN provider of ONNX Runtime, HTP backend."""

    def __repr__(self) -> str:
        """Return how it is made."""
        return "Qnn()"

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "qnn"

    def describe(self) -> str:
        """Return one line for people, which says when the emulator runs and not an NPU."""
        version = importlib.metadata.version("onnxruntime-qnn")
        if is_emulated():
            return f"QNN {version}, HTP emulator on {platform.machine()}: not a phone's times"
        return f"QNN {version} on this machine's NPU"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        check_variant(variant)
        if variant.format != "qnn_context":
            return f"QNN runs the format qnn_context, not {variant.format}"
        if variant.chip is None:
            return f"variant {variant.id} names no chip; export it again"
        if importlib.util.find_spec("onnxruntime_qnn") is None:
            return f"target snapdragon needs onnxruntime-qnn; run: {pip_install(_DISTRIBUTION)}"
        return None

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant: the NPU, for sure only where the chip is the variant's."""
        check_variant(variant)
        if is_emulated():
            return "emulator"
        return "accelerator" if variant.chip and variant.chip.slug == _own_chip() else "unsure"

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        check_request(bundle, variant)
        reason = self.unsupported_reason(variant)
        if reason is not None or variant.chip is None:
            raise BackendError(f"{label_of(variant)}: {reason}")
        path = bundle.model(variant)
        cpu_nodes = len(variant.delegation.non_delegated) if variant.delegation else 0
        ort = import_onnxruntime()
        printed: list[str] = []
        try:
            with captured_native_output() as printed:
                session = ort.InferenceSession(str(path), _options(ort, variant.chip, cpu_nodes))
        except BackendError:
            raise
        except Exception as exc:  # ONNX Runtime has an exception class of its own per status code
            raise BackendError(_explain(variant, first_line(exc), printed)) from exc
        return open_graph(session, variant, _explain_run)


def is_emulated() -> bool:
    """Return whether QNN runs on Qualcomm's emulator here, as it does on every x86-64 machine."""
    return platform.machine().lower() in _X86


def _own_chip() -> str | None:
    """Return the slug of the chip that Linux says it runs on; None where it says nothing."""
    try:
        return _SOC.read_text("ascii").strip().lower() or None
    except (OSError, ValueError):  # another system, or no text
        return None


def register(ort: Any) -> Any:
    """Register the QNN provider with ONNX Runtime, once per process.

    Args:
        ort: The `onnxruntime` module.

    Returns:
        The `onnxruntime_qnn` module, which knows where its libraries are.

    Raises:
        BackendError: If onnxruntime-qnn is missing, or does not fit the installed onnxruntime.
    """
    try:
        qnn = importlib.import_module("onnxruntime_qnn")
    except ImportError as exc:
        raise BackendError(
            f"target snapdragon needs onnxruntime-qnn ({exc}); run: {pip_install(_DISTRIBUTION)}"
        ) from exc
    with _REGISTER:
        if not _devices(ort):
            try:
                ort.register_execution_provider_library(_PROVIDER, qnn.get_library_path())
            except Exception as exc:  # of the runtime's own class
                raise BackendError(
                    f"onnxruntime-qnn {qnn.__version__} does not fit onnxruntime "
                    f"{ort.__version__}: {first_line(exc)}; run: {_reinstall()}"
                ) from exc
    return qnn


def find_device(ort: Any) -> Any:
    """Return the provider's device that runs graphs here: the NPU, or the CPU that emulates one.

    Raises:
        BackendError: If the provider is not registered, or finds neither.
    """
    kinds = ort.OrtHardwareDeviceType
    wanted = kinds.CPU if is_emulated() else kinds.NPU
    for device in _devices(ort):
        if device.device.type == wanted:
            return device
    raise BackendError(
        f"QNN finds no NPU on this {platform.machine()} machine; use an onnx variant here"
    )


def provider_options(qnn: Any, chip: Chip) -> dict[str, str]:
    """Return the options of the provider for one chip, for compiling and for running.

    Args:
        qnn: The `onnxruntime_qnn` module.
        chip: The chip that graphs are compiled for.
    """
    return {
        "backend_path": qnn.get_qnn_htp_path(),
        "soc_model": str(chip.soc_model),
        "htp_arch": str(chip.htp_arch),
        "htp_performance_mode": "burst",
    }


def _reinstall() -> str:
    return pip_install("--force-reinstall", _DISTRIBUTION)


def _devices(ort: Any) -> list[Any]:
    return [device for device in ort.get_ep_devices() if _PROVIDER in device.ep_name]


def _options(ort: Any, chip: Chip, cpu_nodes: int) -> Any:
    qnn = register(ort)
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if cpu_nodes == 0:
        # A node that the manifest does not put on the CPU must fail, not run there in silence.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices([find_device(ort)], provider_options(qnn, chip))
    return options


def _explain_run(message: str) -> str:
    found = find_cause(_FORMAT, message)
    return message if found is None else "; ".join(found)


def _explain(variant: Variant, message: str, printed: Sequence[str]) -> str:
    """Say why a context binary did not load: what it is, what is installed, what to do."""
    told = "\n".join([message, *printed])
    cause, step = find_cause(_FORMAT, told) or (message, f"run mvsdk doctor, or {_reinstall()}")
    chip = "" if variant.chip is None else f" for {variant.chip.slug}"
    made = variant.tools.get("onnxruntime-qnn", variant.tools.get("qnn", "unknown"))
    here = importlib.metadata.version("onnxruntime-qnn")
    return (
        f"QNN cannot load {label_of(variant)}: {cause}; "
        f"made{chip} with QNN {made}, here is onnxruntime-qnn {here}; {step}"
    )
