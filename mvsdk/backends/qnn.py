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
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsdk._installed import pip_install
from mvsdk.backends._graph import check_request, check_variant, first_line, label_of
from mvsdk.backends._ort import import_onnxruntime, open_graph
from mvsdk.backends.native_output import captured_native_output
from mvsdk.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mvsdk.backends._graph import GraphSession
    from mvsdk.backends._speed import Place
    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Chip, Variant

_PROVIDER = "QNN"
_DISTRIBUTION = "onnxruntime-qnn"
_REGISTER = threading.Lock()
_X86 = frozenset({"x86_64", "amd64"})
_ERRORS_ONLY = 3
_SOC = Path("/sys/devices/soc0/machine")
"""Where Qualcomm's kernels write the name of the chip, such as SM8650."""

# Code -> (cause, next step), the deepest cause first: a failed mapping (1002) is reported again as
# a failed creation (5005) by its caller. Names are those of QNN's error headers.
_CAUSES = {
    14001: (
        "QNN_DEVICE_ERROR_INVALID_CONFIG, the NPU's library was not found, or is of another QNN "
        "release",
        "put libQnnHtpV*Skel.so of the same release in ADSP_LIBRARY_PATH; in an Android app also "
        "declare libcdsprpc.so with uses-native-library",
    ),
    4000: (
        "transport error, the NPU's driver did not answer",
        "check that libQnnHtpV*Skel.so of the same QNN release is in ADSP_LIBRARY_PATH",
    ),
    1002: (
        "QNN_COMMON_ERROR_MEM_ALLOC, the NPU has no room to map the weights",
        'close other models, load with memory="low", or export with fewer frames or at w8a16 '
        "(a process can map about 3.5 GB)",
    ),
    5004: (
        "QNN_CONTEXT_ERROR_BINARY_VERSION, the context binary is of a QNN release that this one "
        "cannot read",
        "update onnxruntime-qnn, or export with the installed release",
    ),
    5000: (
        "QNN_CONTEXT_ERROR_INVALID_ARGUMENT, the context binary is of another chip, or of a newer "
        "QNN release than the one installed",
        "export for this chip, or update onnxruntime-qnn",
    ),
    5005: (
        "QNN_CONTEXT_ERROR_CREATE_FROM_BINARY, the context binary is of another chip or HTP "
        "architecture, or needs more memory than the NPU gives",
        "export for this chip (mvsdk devices lists them)",
    ),
    6001: (
        "the NPU stopped while it ran the graph",
        "run the onnx variant to see whether the graph or the driver is at fault",
    ),
}
_NAMES = {"QNN_CONTEXT_ERROR_CREATE_FROM_BINARY": 5005, "QNN_DEVICE_ERROR_INVALID_CONFIG": 14001}
_CODE = re.compile(r"\berr(?:or)?(?:[ _]?code)?\b\s*[:=]?\s*(0x[0-9a-f]+|\d+)", re.IGNORECASE)
# Texts of the ONNX Runtime provider that come without a code.
_TEXTS = {
    "Failed to get context binary info": (
        "the context binary is damaged or of an unknown format",
        "run mvsdk inspect --verify, then export or download the bundle again",
    ),
    "ep_cache_context does not exist": (
        "the context binary that the model names is not beside it",
        "export or download the bundle again",
    ),
    "Unable to load backend": (
        "a QNN library cannot be loaded",
        "run mvsdk doctor, then install onnxruntime-qnn again",
    ),
    "assigned to the default CPU EP": (
        "part of the graph is not compiled for the NPU, and falling back to the CPU is off",
        "export the bundle again",
    ),
}


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
        if variant.target != "snapdragon":
            return f"QNN runs target snapdragon, not {variant.target}"
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
        cpu_nodes = variant.residency.cpu_nodes if variant.residency else 0
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
    found = _cause(message)
    return message if found is None else "; ".join(found)


def _explain(variant: Variant, message: str, printed: Sequence[str]) -> str:
    """Say why a context binary did not load: what it is, what is installed, what to do."""
    told = "\n".join([message, *printed])
    cause, step = _cause(told) or (message, f"run mvsdk doctor, or {_reinstall()}")
    chip = "" if variant.chip is None else f" for {variant.chip.slug}"
    made = variant.tools.get("onnxruntime-qnn", variant.tools.get("qnn", "unknown"))
    here = importlib.metadata.version("onnxruntime-qnn")
    return (
        f"QNN cannot load {label_of(variant)}: {cause}; "
        f"made{chip} with QNN {made}, here is onnxruntime-qnn {here}; {step}"
    )


def _cause(told: str) -> tuple[str, str] | None:
    # Not base 0, which refuses the leading zeros of a decimal number.
    codes = {int(code, 16 if code[:2] in ("0x", "0X") else 10) for code in _CODE.findall(told)}
    codes |= {code for name, code in _NAMES.items() if name in told}
    for code, (cause, step) in _CAUSES.items():
        if code in codes:
            return f"error {code}, {cause}", step
    return next((found for text, found in _TEXTS.items() if text in told), None)
