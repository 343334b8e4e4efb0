"""Opening a bundle to make clips with it: what runs it is chosen here; nothing is loaded yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mvsdk._arguments import check_choice, shown
from mvsdk.backends import find_backend, select
from mvsdk.backends._speed import SOME_CLIPS
from mvsdk.backends.isolated import Isolation, isolate
from mvsdk.bundle import Bundle
from mvsdk.errors import InputError
from mvsdk.pipeline import MEMORIES, Memory, Pipeline

if TYPE_CHECKING:
    import os

    from mvsdk.backends import Backend


def load(
    path: str | os.PathLike[str],
    *,
    backend: Backend | str | None = None,
    target: str | None = None,
    chip: str | None = None,
    precision: str | None = None,
    format: str | None = None,
    program: str | None = None,
    packs: Mapping[str, str | os.PathLike[str]] | None = None,
    clips: int = SOME_CLIPS,
    memory: Memory = "fast",
    isolated: bool | Isolation = False,
) -> Pipeline:
    """Open a bundle and choose what runs it; graphs are loaded when they are first needed.

    Args:
        path: The `NAME.mvbundle` folder.
        backend: Runs the graphs, or its name, such as "executorch"; None takes what the choice
            below needs.
        target: "onnx", "snapdragon", "executorch" or "iphone"; None takes what is fastest here.
        chip: Chip that the graphs were compiled for, by slug, marketing name, or a phone that
            carries it (`find_chipset`); None takes any.
        precision: Such as "fp32" or "w8a16"; None takes what is fastest here
            (`mvsdk.backends.select` has the order).
        format: Such as "coreml" or "coreai" on iphone, the delegate on executorch; None takes any.
        program: Name of the program that is to run, of a bundle that has several, such as for
            several sizes; None takes the default. The choice above is made for it.
        packs: Folder of each part of the bundle that lies elsewhere, by name.
        clips: How many clips will be made, about: a runtime that is slow to start is chosen where
            that many are done sooner with it.
        memory: "fast" keeps graphs loaded for the next clip. "low" lets each go before the next is
            loaded: the peak is that of the largest, and every clip pays for loading again.
        isolated: True runs the graphs in a process of their own, with time limits: a damaged graph
            that would end this process, or never come back, is a `BackendError` then. `Isolation`
            sets the limits. See docs/isolation.md for what it costs.

    Raises:
        BundleNotFoundError: If there is no bundle; this is a FileNotFoundError too.
        BundleError: If the bundle is damaged or unsafe.
        InputError: If the bundle holds no such variant or program, `memory` or the backend's name
            is unknown, `isolated` is not for this backend, or an argument is of a wrong type.
        BackendError: If nothing here can run the variants that are left.
    """
    check_choice("memory", memory, MEMORIES)
    if not isinstance(isolated, bool | Isolation):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(
            f"isolated is {shown(isolated)}; allowed: True, False, mvsdk.Isolation(...)"
        )
    by_name = backend is None or isinstance(backend, str)
    bundle = Bundle.open(path, packs=packs)
    if isinstance(backend, str):
        backend = find_backend(backend)
    choice = select(
        bundle,
        backend=backend,
        target=target,
        chip=chip,
        precision=precision,
        format=format,
        program=program,
        clips=clips,
    )
    if isolated is not False:
        limits = Isolation() if isolated is True else isolated
        choice = isolate(choice, limits, found_by_name=by_name)
    return Pipeline(bundle, choice, program=program, memory=memory)
