"""A backend of another package whose graphs do what their model files say: die, hang, lie, work."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tiny_bundles import VariantFiles, build_bundle, fake_functions

from mvsdk.backends._graph import GraphSession
from mvsdk.backends.native_output import captured_native_output
from mvsdk.bundle import Bundle
from mvsdk.errors import InputError, MvsdkError
from mvsdk.manifest import Variant

NAME = "trial"
LINES = b"LIBNATIVE: reading\n\x1b[31m<E> no such table\x1b[0m\n"


def _hold_everything() -> None:
    """Hang as native code does: without letting other threads of Python run, deaf to signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    ctypes.PyDLL(None).sleep(600)


def _print_and_abort() -> None:
    with captured_native_output():
        os.write(2, LINES)
        os.abort()


def _write_and_abort() -> None:
    with captured_native_output():
        sys.stderr.write(LINES.decode())
        os.abort()


def _write_into_every_pipe() -> None:
    for descriptor in range(3, 40):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff" * 64)
    time.sleep(600)


def _refuse() -> None:
    raise InputError("the table of 3 rows has no row 4; give another")


def _fail() -> None:
    raise MemoryError("no room\nfor a table")


DEEDS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "crash": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "be killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": _hold_everything,
    "sleep": lambda: time.sleep(600),
    "print and abort": _print_and_abort,
    "write and abort": _write_and_abort,
    "talk and abort": lambda: (print("past every capture"), os.abort()),
    "lie": _write_into_every_pipe,
    "refuse": _refuse,
    "fail": _fail,
}


class Trial:
    """Runs `fake_functions`, but for a component whose model file is `WHEN: DEED`."""

    @property
    def name(self) -> str:
        return NAME

    def describe(self) -> str:
        return "a backend on trial"

    def unsupported_reason(self, variant: Variant) -> str | None:
        del variant
        return None

    def load(self, bundle: Bundle, variant: Variant) -> Any:
        told = bundle.model(variant).read_text()
        when, _, deed = told.partition(": ")
        component = variant.model.split("/")[1]
        function = fake_functions()[component]
        _do(when == "load", deed, bundle)

        def run(feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
            _do(when == "run", deed, bundle)
            made = function(feeds)
            if (when, deed) == ("run", "shrink"):
                return [made[spec.name][..., :1].copy() for spec in variant.outputs]
            return [np.asarray(made[spec.name], spec.dtype) for spec in variant.outputs]

        if deed == "shrink":
            return _Unchecked(variant, run)
        return GraphSession(
            component,
            variant.inputs,
            variant.outputs,
            run,
            close=lambda: _note(bundle.path.parent / "closed.txt", component),
        )


class _Unchecked:
    """A session that gives what the graph gives."""

    run_s = 0.0

    def __init__(self, variant: Variant, run: Callable[[Any], Sequence[np.ndarray]]) -> None:
        self._names, self._run = [spec.name for spec in variant.outputs], run

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._run(inputs), strict=True))

    def close(self) -> None:
        pass


def _note(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def _do(due: bool, deed: str, bundle: Bundle) -> None:
    once = bundle.path.parent / "done"
    if due and deed.startswith("once "):
        if once.exists():
            return
        once.touch()
        deed = deed.removeprefix("once ")
    if due and deed != "shrink":
        if deed in ("hang", "sleep"):
            (bundle.path.parent / "busy").write_text(str(os.getpid()))
        DEEDS[deed]()


def install(folder: Path) -> None:
    """Write what makes the backend known by its name wherever the folder is on `sys.path`."""
    about = folder / "mvsdk_trial-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mvsdk-trial\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[mvsdk.backends]\n{NAME} = trial_backend:Trial\n")


def build(folder: Path, deeds: Mapping[str, str] | None = None) -> Bundle:
    """Write a bundle for the backend.

    Args:
        folder: Where it lies; it also holds what the graphs leave.
        deeds: Component -> `WHEN: DEED`; WHEN is load or run, DEED one of `DEEDS` or "shrink",
            after "once " only the first time.
    """

    def content(component: str, into: Path) -> Sequence[Path]:
        (into / "model.onnx").write_text((deeds or {}).get(component, "work"))
        return [into / "model.onnx"]

    return build_bundle(folder / "trial.mvbundle", [VariantFiles(content=content)])


def refusal_of(call: Callable[[], object]) -> MvsdkError:
    """Return the error that a call raises."""
    try:
        call()
    except MvsdkError as exc:
        return exc
    raise AssertionError("nothing was refused")
