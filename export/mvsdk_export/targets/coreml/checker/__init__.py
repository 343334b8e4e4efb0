"""Core ML packages read from disk and evaluated, on systems that have no Core ML.

    from mvsdk_export import checker

    package = checker.open_package(Path("transformer.mlpackage"))
    Counter(item.type for item in package.operations())
    outputs = checker.load_program(Path("transformer.mlpackage")).run({"latents": latents})

What is verified is what is shipped: description and weights come from the saved folder, and no code
that wrote them takes part in reading them. Every operation computes in float32, and its result is
rounded to float16 where the program says float16. That models float16 storage with wide
accumulation. Core ML differs in both directions: the Neural Engine may accumulate in fewer bits,
and fused operations round less often than the program says (docs/apple.md).

Opening a package needs coremltools (its protobuf messages) and no PyTorch; evaluation needs both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mvsdk_export.targets.coreml.checker.package import (
    Function,
    Operation,
    Package,
    Tensor,
    open_package,
)

if TYPE_CHECKING:
    from mvsdk_export.targets.coreml.checker.program import Program, load_program

__all__ = [  # noqa: RUF022 - grouped by use
    # what a package says
    "open_package",
    "Package",
    "Function",
    "Operation",
    "Tensor",
    # what it computes
    "load_program",
    "Program",
]

_HEAVY = {
    "load_program": "mvsdk_export.targets.coreml.checker.program",
    "Program": "mvsdk_export.targets.coreml.checker.program",
}


def __getattr__(name: str) -> object:
    """Load what needs PyTorch when it is first asked for."""
    home = _HEAVY.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
