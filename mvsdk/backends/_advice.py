"""What there is to say of a choice that checks numbers, to somebody who wants clips."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from mvsdk.backends._registry import built_in_backends
from mvsdk.backends._selection import find_sets
from mvsdk.backends._speed import is_slow
from mvsdk.targets import FORMATS

if TYPE_CHECKING:
    from mvsdk.backends._selection import Selection
    from mvsdk.bundle import Bundle


def slow_note(bundle: Bundle, selection: Selection) -> str | None:
    """Return in one line that a choice is slow here, and what is fast; None where it is not slow.

    Args:
        bundle: The bundle.
        selection: What was chosen of all of it, as by `select` without filters.
    """
    key, place = selection.key, selection.place
    if not is_slow(key, place):
        return None
    what = f"{key.precision} on a CPU"
    if place == "emulator":
        substitute = FORMATS[key.format].substitute
        what = substitute or f"the backend {selection.backend.name}"
    return f"this is {what}, for checking numbers; {_faster(bundle)}"


def _faster(bundle: Bundle) -> str:
    """Return what would be fast here: something of the bundle that lacks a package, or an export.

    What is fast, is there and runs, would have been chosen.
    """
    ours = {backend.name: backend for backend in built_in_backends()}
    meant = {"xnnpack": ours["executorch"]}
    if platform.system() == "Darwin":
        meant = {"coreml": ours["coreml"], **meant}
    candidates = find_sets(bundle.manifest)
    for made_for, backend in meant.items():
        for item in candidates:
            if made_for != (item.key.delegate or item.key.format):
                continue
            its = [v for v in item.variants.values() if v.format == item.key.format]
            reasons = map(backend.unsupported_reason, its)
            if reason := next(filter(None, reasons), None):
                return f"this bundle's {item} is faster here, but {reason}"
    return (
        "a bundle for executorch is faster here (XNNPACK, w8a8): mvsdk export --target executorch"
    )
