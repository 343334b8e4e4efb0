"""Runs another backend in a process of its own, whose end is an error like any other here.

Runtimes of phones are made for files that their own compilers wrote: some damaged ones abort them,
crash them or keep them busy for ever (docs/isolation.md), and with them the program that they are
part of. Here they take only their own process along.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import mvsdk.errors
from mvsdk._arguments import check_choice, check_kind, check_number
from mvsdk.backends._graph import component_of, decoded_dtype, label_of
from mvsdk.backends._process import ProcessLost, RuntimeProcess
from mvsdk.backends._registry import make_backend, options_of
from mvsdk.backends._speed import place_of
from mvsdk.errors import BackendError, InputError, MvsdkError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.backends import Backend, Selection
    from mvsdk.backends._messages import Header
    from mvsdk.backends._speed import Place
    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Variant

logger = logging.getLogger(__name__)

FRAGILE = frozenset({"qnn", "executorch", "coreai"})
"""Backends whose runtimes end the process, or never come back, on some damaged graphs."""
LEAST_LIMIT_S, MOST_LIMIT_S = 0.001, 30 * 86400.0
_CLOSE_LIMIT_S = 30.0
_MAX_TEXT, _MAX_LINE, _MAX_RULE = 4096, 200, 8
_ADVICE = "the file is damaged, or the runtime has a fault; download or export the bundle again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How graphs run in a process of their own."""

    load_timeout_s: float = 600.0
    """How long a graph may take to load, with the start of the process; seconds."""
    run_timeout_s: float = 1800.0
    """How long a graph may run, each time; seconds."""
    which: Literal["all", "fragile"] = "all"
    """"all" isolates every backend, "fragile" only those that damaged graphs can end."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("load_timeout_s", "run_timeout_s"):
            seconds = check_number(name, getattr(self, name), low=LEAST_LIMIT_S, high=MOST_LIMIT_S)
            object.__setattr__(self, name, seconds)
        check_choice("which", self.which, ("all", "fragile"))


def isolate(selection: Selection, isolation: Isolation, *, found_by_name: bool) -> Selection:
    """Return a selection whose graphs run in a process of their own.

    Args:
        selection: What was chosen.
        isolation: Limits, and whether it is for this backend at all.
        found_by_name: Whether the backend is known to be what its name stands for.

    Raises:
        InputError: If the backend cannot be made anew in another process.
    """
    wrapped: dict[int, Backend] = {}
    for backend in selection.backends.values():
        if isolation.which == "fragile" and backend.name not in FRAGILE:
            wrapped[id(backend)] = backend
        elif id(backend) not in wrapped:
            if not found_by_name:
                _check_can_travel(backend)
            wrapped[id(backend)] = Isolated(backend, isolation)
    backends = {name: wrapped[id(backend)] for name, backend in selection.backends.items()}
    return replace(selection, backends=backends)


class Isolated:
    """Runs another backend's graphs in one process, which starts with the first of them."""

    def __init__(self, backend: Backend, isolation: Isolation) -> None:
        """Wrap a backend that `make_backend` can make anew; use `isolate`, which checks that."""
        self._backend = backend
        self._isolation = isolation
        self._process: RuntimeProcess | None = None
        self._description = ""

    @property
    def name(self) -> str:
        """Name of the backend that runs the graphs."""
        return self._backend.name

    def describe(self) -> str:
        """Return one line for people, that of the backend that runs the graphs.

        As its process says it, if one has loaded a graph: so its libraries are loaded only there.
        """
        return self._description or self._backend.describe()

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        return self._backend.unsupported_reason(variant)

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant."""
        return place_of(self._backend, variant)

    def load(self, bundle: Bundle, variant: Variant) -> IsolatedSession:
        """Load one graph in the process; see `mvsdk.backends.Backend.load`.

        Raises:
            BackendError: Also if the process ends, or takes longer than the limit.
        """
        label = label_of(variant)
        component, number = component_of(bundle, variant)
        request = {
            "do": "load",
            "label": label,
            "backend": self.name,
            "options": options_of(self._backend),
            "bundle": str(bundle.path),
            "packs": {name: str(path) for name, path in bundle.packs.items()},
            "component": component,
            "variant": number,
        }
        manifest = np.frombuffer(bundle.manifest.to_json(), np.uint8)
        limit_s = self._isolation.load_timeout_s
        process = self._running()
        graph = _Graph(label=label, runtime=self.name, process=process)
        reply, _ = graph.ask("load", request, {"manifest": manifest}, limit_s=limit_s)
        session = reply.get("session")
        if type(session) is not int:
            process.close()
            raise BackendError(f"{label}: {self.name} answered nonsense; {_ADVICE}")
        self._description = _printable(reply.get("describe", ""), _MAX_LINE)
        return IsolatedSession(graph, session, variant, self._isolation)

    def close(self) -> None:
        """End the process; the next graph starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _running(self) -> RuntimeProcess:
        if self._process is not None and not self._process.is_alive:
            logger.debug("the process of %s is gone; starting another", self.name)
            self.close()
        if self._process is None:
            self._process = RuntimeProcess()
        return self._process


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """Whom to ask for one graph, and what errors call it."""

    label: str
    runtime: str
    process: RuntimeProcess

    def ask(
        self, deed: Literal["load", "run"], *message: Any, **options: Any
    ) -> tuple[Header, dict[str, NDArray[Any]]]:
        """Make a call; turn the error of a reply, and the end of the process, into ours."""
        try:
            reply, arrays = self.process.call(*message, **options)
        except ProcessLost as exc:
            raise BackendError(f"{self.label}: {self.runtime} {_explain(exc, deed)}") from exc
        if "error" in reply:
            raise _error_of(reply)
        return reply, arrays


class IsolatedSession:
    """One graph in another process."""

    def __init__(self, graph: _Graph, number: int, variant: Variant, isolation: Isolation) -> None:
        """Refer to a graph that is loaded; `Isolated.load` makes these."""
        self._graph = graph
        self._number: int | None = number
        self._due = [
            (spec.name, decoded_dtype(spec).str, tuple(spec.shape)) for spec in variant.outputs
        ]
        self._isolation = isolation
        self._run_s = 0.0

    @property
    def run_s(self) -> float:
        """Seconds spent inside the native call, as its process measured them."""
        return self._run_s

    @property
    def is_lost(self) -> bool:
        """Whether the process that held the graph is no more."""
        return not self._graph.process.is_alive

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `mvsdk.backends.Session.run`.

        Raises:
            BackendError: Also if the process ends, or takes longer than the limit.
        """
        check_kind("inputs", inputs, Mapping, how="pass one array for every input")
        if self._number is None:
            raise BackendError(f"{self._graph.label} is closed; load it again")
        given = {name: np.asarray(value) for name, value in inputs.items()}
        for name, value in given.items():
            if value.dtype.kind not in "biuf":
                raise InputError(f"{self._graph.label}/{name} is of {value.dtype}; give numbers")
        request = {"do": "run", "label": self._graph.label, "session": self._number}
        start = time.perf_counter()
        reply, outputs = self._graph.ask(
            "run", request, given, limit_s=self._isolation.run_timeout_s, due=self._due
        )
        within_s = time.perf_counter() - start
        run_s: object = reply.get("run_s")
        # As long as the call took, at most, whatever its process says.
        self._run_s += run_s if isinstance(run_s, float) and 0 <= run_s <= within_s else within_s
        return outputs

    def close(self) -> None:
        """Give the graph's memory back; a second call does nothing."""
        number, self._number = self._number, None
        if number is None or self.is_lost:
            return
        request = {"do": "close", "label": self._graph.label, "session": number}
        try:
            self._graph.process.call(request, limit_s=_CLOSE_LIMIT_S)
        except ProcessLost as exc:  # and all its memory with it
            logger.debug("%s ended while it let a graph go", self._graph.runtime, exc_info=exc)


def _check_can_travel(backend: Backend) -> None:
    """Check that another process makes an equal backend of the name and the options.

    Raises:
        InputError: If not.
    """
    try:
        made: object = make_backend(backend.name, options_of(backend))
        same = type(made) is type(backend)
        equal = same and (bool(options_of(backend)) or _state(made) == _state(backend))
    except (MvsdkError, ValueError):  # ValueError: arrays, which do not say if they are equal
        equal = False
    if not equal:
        raise InputError(
            f"backend {backend.name} of the type {type(backend).__name__} cannot run in a process "
            "of its own, which can make only backends that are known by name (mvsdk doctor), and "
            "without options but those of OnnxRuntime and CoreML; pass its name, or isolated=False"
        )


def _state(backend: object) -> object:
    """Return all that a backend of a plain class is made of; itself if that cannot be told."""
    return getattr(backend, "__dict__", backend)


def _error_of(reply: Header) -> MvsdkError:
    """Return the error that a reply is, of the same class, text and rule as it was there."""
    kind: object = getattr(mvsdk.errors, str(reply["error"]), None)
    text = _printable(reply.get("text"), _MAX_TEXT)
    error: MvsdkError = BackendError(text)
    if isinstance(kind, type) and issubclass(kind, MvsdkError):
        error = kind(text)
    rule = reply.get("rule")
    error.rule = _printable(rule, _MAX_RULE) if isinstance(rule, str) else None
    return error


def _printable(text: object, most: int) -> str:
    return "".join(x if x.isprintable() else " " for x in str(text)[:most])


def _explain(lost: ProcessLost, deed: Literal["load", "run"]) -> str:
    """Say how a process ended, in what, what it said last, and what to do."""
    said = f"; it said last: {lost.said}" if lost.said else ""
    during = "loaded the graph" if deed == "load" else "ran the graph"
    if lost.closed:
        return f"was closed while it {during}"
    if lost.limit_s is not None:
        done = "loaded" if deed == "load" else "run"
        return (
            f"had not {done} the graph after {lost.limit_s:g} s and was ended{said}; {_ADVICE}, or "
            f"allow more time: --time-limit, or {deed}_timeout_s of mvsdk.Isolation"
        )
    if lost.fault:
        return f"answered with {lost.fault} while it {during} and was ended{said}; {_ADVICE}"
    how = _how(lost.status)
    if lost.status == -getattr(signal, "SIGKILL", 9):
        return (
            f"was ended by {how} while it {during}{said}; a system that is short of memory does "
            'so: load with memory="low" (--memory low), or close other programs'
        )
    return f"died with {how} while it {during}{said}; {_ADVICE}"


def _how(status: int | None) -> str:
    if status is None:
        return "an unknown status"
    if status >= 0:
        return f"exit status {status if status < 256 else hex(status)}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"
