"""ONNX Runtime on the CPU: runs the `onnx` variants on any computer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvsdk._arguments import check_whole_number
from mvsdk.backends._graph import check_request, check_variant, first_line, label_of
from mvsdk.backends._ort import import_onnxruntime, open_graph
from mvsdk.errors import BackendError

if TYPE_CHECKING:
    from mvsdk.backends._graph import GraphSession
    from mvsdk.backends._speed import Place
    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Variant

_SILENT = 4  # everything worth knowing is in the exception too; below 4 it is printed as well
_MOST_THREADS = 1 << 16


class OnnxRuntime:
    """The CPU provider of ONNX Runtime."""

    def __init__(self, threads: int | None = None) -> None:
        """Configure the backend; nothing is imported yet.

        Args:
            threads: Threads inside one graph; None lets ONNX Runtime take one per core.

        Raises:
            InputError: If `threads` is no whole number, or below 1.
        """
        if threads is not None:
            allowed = "1 and above, or None for all cores"
            threads = check_whole_number(
                "threads", threads, low=1, high=_MOST_THREADS, allowed=allowed
            )
        self._threads = threads

    def __repr__(self) -> str:
        """Return how it is made."""
        return f"OnnxRuntime(threads={self._threads})"

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "onnxruntime"

    @property
    def threads(self) -> int | None:
        """Threads inside one graph; None for one per core."""
        return self._threads

    def describe(self) -> str:
        """Return one line for people: version, and that the CPU of this machine runs the graphs."""
        return f"ONNX Runtime {import_onnxruntime().__version__} on this machine's CPU"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        check_variant(variant)
        if variant.format != "onnx":
            return f"ONNX Runtime on the CPU runs the format onnx, not {variant.format}"
        return None

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant: the CPU."""
        check_variant(variant)
        return "cpu"

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        check_request(bundle, variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label_of(variant)}: {reason}; choose another variant")
        path = bundle.model(variant)
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = _SILENT
        # Threads that spin after a graph has run slow the next graph: half the speed of a clip.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # ONNX Runtime has an exception class of its own per status code
            raise BackendError(
                f"ONNX Runtime {ort.__version__} cannot load {label_of(variant)}: "
                f"{first_line(exc)}; made with {variant.tools.get('onnxruntime', 'unknown')}, "
                "update onnxruntime or export again"
            ) from exc
        return open_graph(session, variant)
