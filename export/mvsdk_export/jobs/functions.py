"""What the stages of an export do. Every function runs in a child process (stages.py).

A function takes JSON values and paths of finished stages, writes files into `output` and returns
JSON values. None of them prints. A child imports the module of its function and no other: what one
target needs costs others seconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

MODULES: Mapping[str, tuple[str, ...]] = {
    "apple": ("compress_coreml", "convert_coreml", "finish_coreml", "lower_coreai"),
    "executorch": ("lower_executorch",),
    "graphs": (
        "evaluate",
        "finish",
        "finish_part",
        "join",
        "quantize",
        "quantize_part",
        "split",
        "trace",
    ),
    "reference": ("paint", "read", "record", "verify"),
    "snapdragon": ("compile_chip", "stitch"),
}
"""Module -> functions that stages call."""


def find_function(name: str) -> Callable[..., Mapping[str, Any]]:
    """Return the function of a stage.

    Raises:
        KeyError: If there is none of that name.
    """
    modules = {function: module for module, found in MODULES.items() for function in found}
    return getattr(importlib.import_module(f"{__name__}.{modules[name]}"), name)
