"""Apple's Core AI runtime: runs `iphone` variants of the format coreai, on Linux and on a Mac.

The package is a beta, and its interface is asynchronous: coroutines run on a loop of our own, so
that callers need none, and may have one of theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import platform
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from mvsdk._installed import installed_version, pip_install
from mvsdk.backends._graph import (
    GraphSession,
    check_request,
    check_signature,
    check_variant,
    first_line,
    label_of,
)
from mvsdk.backends.native_output import captured_native_output
from mvsdk.errors import BackendError, BundleError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mvsdk.backends._speed import Place
    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Variant

    T = TypeVar("T")

TESTED_VERSION = "1.0.0b3"
_DISTRIBUTION = "coreai-core"
_FUNCTION = "main"
_PROGRAM = "main.mlirb"
_MAGIC = b"ML\xefR"


class CoreAI:
    """The Core AI runtime."""

    def __repr__(self) -> str:
        """Return how it is made."""
        return "CoreAI()"

    @property
    def name(self) -> str:
        """Short name, as in error messages."""
        return "coreai"

    def describe(self) -> str:
        """Return one line for people, which says where no phone's hardware runs."""
        place = "this Mac" if platform.system() == "Darwin" else "this CPU: not a phone's times"
        return f"Core AI runtime {installed_version(_DISTRIBUTION)} on {place}"

    def unsupported_reason(self, variant: Variant) -> str | None:
        """Return why a variant cannot run here, or None if it can."""
        check_variant(variant)
        if variant.format != "coreai":
            return f"Core AI runs the format coreai, not {variant.format}"
        if installed_version(_DISTRIBUTION) is None:
            return f"format coreai needs the package {_DISTRIBUTION}; run: {_install()}"
        return None

    def place(self, variant: Variant) -> Place:
        """Return what runs a variant: a Mac's own hardware, or software in its place."""
        check_variant(variant)
        return "accelerator" if platform.system() == "Darwin" else "emulator"

    def load(self, bundle: Bundle, variant: Variant) -> GraphSession:
        """Load one graph; see `mvsdk.backends.Backend.load`."""
        check_request(bundle, variant)
        label = label_of(variant)
        reason = self.unsupported_reason(variant)
        if reason is not None:
            raise BackendError(f"{label}: {reason}")
        path = bundle.model(variant)
        _check_program(label, path)
        authoring, runtime = _import("coreai.authoring"), _import("coreai.runtime")
        with contextlib.ExitStack() as undo:
            stack = contextlib.AsyncExitStack()
            close = undo.callback(lambda: _loop().run(stack.aclose()))
            try:
                with captured_native_output():
                    opened = _open(authoring, path, variant.function or _FUNCTION, stack)
                    function = _loop().run(opened)
                _check_signatures(label, variant, function.desc)
            except BundleError:
                raise
            except Exception as exc:  # of classes that differ from beta to beta
                raise BackendError(_explain(f"Core AI cannot load {label}", variant, exc)) from exc
            undo.pop_all()
        names = [spec.name for spec in variant.outputs]

        def run(feeds: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
            try:
                given = {name: runtime.NDArray(value) for name, value in feeds.items()}
                made = _loop().run(function(given))
                # Copied, as the memory belongs to the runtime.
                return [made[name].numpy().copy() for name in names]
            except Exception as exc:  # as above
                raise BackendError(_explain(f"{label} failed to run", variant, exc)) from exc

        return GraphSession(label, variant.inputs, variant.outputs, run, close)


def _install() -> str:
    return pip_install(f"{_DISTRIBUTION}=={TESTED_VERSION}")


def _check_program(label: str, path: Path) -> None:
    """Check that there is a program: the runtime ends the process where it cannot read one.

    That it is whole is known by the hashes of the bundle (`Bundle.verify`): nothing here reads
    more of it than how it begins.

    Raises:
        BundleError: If the asset holds no program.
    """
    program = path / _PROGRAM
    start = b""
    if program.is_file():
        with program.open("rb") as file:
            start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise BundleError(f"{label}: {path.name} holds no Core AI program; export the bundle again")


def _import(name: str) -> Any:
    try:
        with captured_native_output():
            return importlib.import_module(name)
    except (ImportError, OSError) as exc:  # OSError: a library that is missing on this system
        here = installed_version(_DISTRIBUTION)
        raise BackendError(
            f"{_DISTRIBUTION} {here} has no usable {name} ({first_line(exc)}); tested is "
            f"{TESTED_VERSION}; run: {_install()}"
        ) from exc


async def _open(authoring: Any, path: Path, function: str, stack: contextlib.AsyncExitStack) -> Any:
    # Away from Apple's systems an asset is first compiled into a folder that lasts as long as the
    # stack is open; there the system compiles it, and keeps the result.
    asset = authoring.AIModelAsset.load(path)
    model = await stack.enter_async_context(asset.executable())
    return model.load_function(function)


def _check_signatures(label: str, variant: Variant, function: Any) -> None:
    """Check a function, by its descriptor, against the manifest."""
    inputs = {name: function.input_descriptor(name) for name in function.input_names}
    outputs = {name: function.output_descriptor(name) for name in function.output_names}
    for side, specs, found in (
        ("input", variant.inputs, inputs),
        ("output", variant.outputs, outputs),
    ):
        shown = {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}
        check_signature(label, side, specs, shown)


class _Loop:
    """A loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="mvsdk-coreai", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, from a thread with or without a loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C in the caller's thread too
            future.cancel()
            raise


@functools.cache
def _loop() -> _Loop:
    """Return the loop of all sessions, which is started with the first of them."""
    return _Loop()


if hasattr(os, "register_at_fork"):  # a fork has the loop, and no thread that runs it
    os.register_at_fork(after_in_child=_loop.cache_clear)


def _explain(what: str, variant: Variant, exc: BaseException) -> str:
    here = installed_version(_DISTRIBUTION)
    made = variant.tools.get(_DISTRIBUTION, "unknown")
    return (
        f"{what}: {first_line(exc)}; made with {_DISTRIBUTION} {made}, here is {here}, tested is "
        f"{TESTED_VERSION}: releases of this beta may not read each other's files; export the "
        f"bundle again, or run: {_install()}"
    )
