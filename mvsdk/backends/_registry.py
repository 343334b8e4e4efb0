"""The backends that there are: those of this package, and those that other packages offer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mvsdk._text import quoted
from mvsdk.errors import BackendError, InputError

if TYPE_CHECKING:
    from mvsdk.backends import Backend

logger = logging.getLogger(__name__)

GROUP = "mvsdk.backends"
"""Entry points of other packages: each is called without arguments and gives a `Backend`, whose
name is the entry point's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherBackends:
    """What other packages offer, by name."""

    loaded: Mapping[str, Backend]
    failed: Mapping[str, str]
    """Why others do not load."""


def built_in_backends() -> tuple[Backend, ...]:
    """Return the backends of this package, in order of preference."""
    # Here and not above, as all of them import the package that this module is in.
    from mvsdk.backends.coreai import CoreAI
    from mvsdk.backends.coreml import CoreML
    from mvsdk.backends.executorch import ExecuTorch
    from mvsdk.backends.onnxruntime import OnnxRuntime
    from mvsdk.backends.qnn import Qnn

    return (OnnxRuntime(), Qnn(), ExecuTorch(), CoreML(), CoreAI())


def further_backends() -> FurtherBackends:
    """Load the backends that other packages offer; one that is broken breaks no other."""
    from mvsdk.backends import Backend

    loaded: dict[str, Backend] = {}
    failed: dict[str, str] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found: object = point.load()()
        except Exception as exc:  # whatever a package of somebody else's raises
            logger.debug("%s does not load", point.value, exc_info=exc)
            failed[point.name] = f"{point.value} does not load ({type(exc).__name__}: {exc})"
            continue
        if isinstance(found, Backend):
            loaded[point.name] = found
        else:
            failed[point.name] = f"{point.value} gives a {type(found).__name__}, not a backend"
    return FurtherBackends(loaded=loaded, failed=failed)


def default_backends() -> tuple[Backend, ...]:
    """Return the backends that `select` tries: those of this package, then others by name."""
    return (*built_in_backends(), *further_backends().loaded.values())


def options_of(backend: Backend) -> dict[str, int | str | None]:
    """Return what a backend of this package was made with, as `make_backend` takes it."""
    from mvsdk.backends.coreml import CoreML
    from mvsdk.backends.onnxruntime import OnnxRuntime

    if type(backend) is OnnxRuntime:
        return {"threads": backend.threads}
    return {"compute_units": backend.compute_units} if type(backend) is CoreML else {}


def make_backend(name: str, options: Mapping[str, Any]) -> Backend:
    """Make the backend of that name, with the options that `options_of` gives.

    Raises:
        InputError: If there is none.
        BackendError: If another package's is broken.
    """
    from mvsdk.backends.coreml import CoreML
    from mvsdk.backends.onnxruntime import OnnxRuntime

    if name == "onnxruntime":
        return OnnxRuntime(**options)
    return CoreML(**options) if name == "coreml" else find_backend(name)


def find_backend(name: str) -> Backend:
    """Return the backend of that name.

    Raises:
        InputError: If there is none.
        BackendError: If another package's is broken.
    """
    built_in = {backend.name: backend for backend in built_in_backends()}
    if name in built_in:
        return built_in[name]
    further = further_backends()
    if name in further.failed:
        raise BackendError(
            f"backend {name}: {further.failed[name]}; install its package again, or choose another"
        )
    if name not in further.loaded:
        known = ", ".join([*built_in, *further.loaded])
        raise InputError(f"unknown backend {quoted(name)}; known: {known}")
    return further.loaded[name]
