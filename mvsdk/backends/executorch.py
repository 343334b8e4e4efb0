"""ExecuTorch's own Python runtime: runs `executorch` variants whose delegate is XNNPACK.

It is the runtime that phones have, on this machine's CPU. Programs for the Core ML delegate run on
Apple's systems, those for QNN on a phone.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any

from mvsdk.backends._graph import GraphSession
from mvsdk.backends._ort import first_line, label_of
from mvsdk.backends.native_output import captured_native_output
from mvsdk.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Variant

_INSTALL = "pip install 'mvsdk[executorch]'"
_BACKEND = "XnnpackBackend"
_ELSEWHERE = {
    "coreml": "the Core ML delegate runs on Apple's systems only",
    "qnn": "the QNN delegate runs on a phone with a Snapdragon chip only",
}
_METHOD = "forward"
WEIGHTS_SUFFIX = ".ptd"
"""Files of weights beside a program."""


class ExecuTorch:
    """ExecuTorch on the CPU."""

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "executorch"

    def describe(self) -> str:
        """Return one line for people."""
        return f"ExecuTorch {importlib.metadata.version('executorch')}, XNNPACK on this CPU"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        if variant.format != "executorch":
            return f"ExecuTorch runs target executorch, not {variant.target}"
        if variant.delegate in _ELSEWHERE:
            return f"{_ELSEWHERE[variant.delegate]}; use an xnnpack variant here"
        if importlib.util.find_spec("executorch") is None:
            return f"target executorch needs ExecuTorch; run: {_INSTALL}"
        return None

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        label = label_of(variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label}: {reason}")
        path = bundle.model(variant)
        weights = [bundle.file(x) for x in variant.files if x.path.endswith(WEIGHTS_SUFFIX)]
        torch, portable = _import()
        try:
            with captured_native_output():
                module = portable._load_for_executorch(
                    str(path), str(weights[0]) if weights else None
                )
        except Exception as exc:  # of the runtime's own class
            raise BackendError(
                f"ExecuTorch cannot load {label}: {first_line(exc)}; made with ExecuTorch "
                f"{variant.tools.get('executorch', 'unknown')}, here is "
                f"{importlib.metadata.version('executorch')}; export the bundle again"
            ) from exc
        names = [spec.name for spec in variant.inputs]

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            try:
                with captured_native_output():
                    made = module.run_method(
                        _METHOD, tuple(torch.from_numpy(feeds[name]) for name in names)
                    )
            except Exception as exc:  # of the runtime's own class
                raise BackendError(f"{label} failed to run: {first_line(exc)}") from exc
            # The runtime keeps its outputs' memory for the next run.
            return [value.numpy().copy() for value in made]

        return GraphSession(label, variant.inputs, variant.outputs, run)


def _import() -> tuple[Any, Any]:
    """Import PyTorch, in whose tensors this runtime takes and gives everything, and the runtime.

    Raises:
        BackendError: If one is missing or broken, or lacks XNNPACK.
    """
    try:
        with captured_native_output():
            torch = importlib.import_module("torch")
            portable = importlib.import_module("executorch.extension.pybindings._portable_lib")
            known = portable._get_registered_backend_names()
    except ImportError as exc:
        raise BackendError(
            f"target executorch needs ExecuTorch ({exc}); run: {_INSTALL} --force-reinstall"
        ) from exc
    if _BACKEND not in known:
        raise BackendError(
            f"this build of ExecuTorch has no {_BACKEND}, only {', '.join(known) or 'none'}; "
            f"run: {_INSTALL} --force-reinstall"
        )
    return torch, portable
