"""Apple's Core AI runtime: runs `iphone` variants of the format coreai, on Linux and on a Mac.

The packages are beta, and their interface is asynchronous: a session has a thread with a loop of
its own, so that callers need none, and may have one of theirs.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import platform
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from mvsdk.backends._graph import GraphSession
from mvsdk.backends._ort import first_line, label_of
from mvsdk.backends.native_output import captured_native_output
from mvsdk.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from numpy.typing import NDArray

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Variant

    T = TypeVar("T")

_DISTRIBUTION = "coreai-core"
_INSTALL = "pip install 'mvsdk[coreai]'"
TESTED_VERSION = "1.0.0b3"
_FUNCTION = "main"


class CoreAI:
    """The Core AI runtime."""

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "coreai"

    def describe(self) -> str:
        """Return one line for people, which says where no phone's hardware runs."""
        version = importlib.metadata.version(_DISTRIBUTION)
        place = "" if platform.system() == "Darwin" else ", CPU: not a phone's times"
        return f"Core AI runtime {version}{place}"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        if variant.format != "coreai":
            return f"Core AI runs the format coreai, not {variant.format}"
        if importlib.util.find_spec("coreai") is None:
            return f"format coreai needs Apple's Core AI packages; run: {_INSTALL}"
        return None

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        label = label_of(variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label}: {reason}")
        path = bundle.model(variant)
        loop = _Loop()
        try:
            with captured_native_output():
                runtime = importlib.import_module("coreai.runtime")
                model = loop.run(runtime.AIModel.load(path))
                function = model.load_function(variant.function or _FUNCTION)
        except Exception as exc:  # of the runtime's own classes, which differ between betas
            loop.close()
            raise BackendError(_explain(f"Core AI cannot load {label}", exc)) from exc
        names = [spec.name for spec in variant.outputs]

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            try:
                given = {name: runtime.NDArray(value) for name, value in feeds.items()}
                made = loop.run(function(given))
                return [made[name].numpy().copy() for name in names]
            except Exception as exc:  # as above
                raise BackendError(_explain(f"{label} failed to run", exc)) from exc

        return GraphSession(label, variant.inputs, variant.outputs, run, loop.close)


class _Loop:
    """A thread that runs coroutines, whether or not the caller's thread has a loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _explain(what: str, exc: BaseException) -> str:
    here = importlib.metadata.version(_DISTRIBUTION)
    tested = "" if here == TESTED_VERSION else f", tested is {TESTED_VERSION}"
    return (
        f"{what}: {first_line(exc)}; here is {_DISTRIBUTION} {here}{tested}, a beta; "
        f"export the bundle again with the installed release, or run: {_INSTALL} --force-reinstall"
    )
