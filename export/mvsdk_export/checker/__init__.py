"""A checker for Core ML packages: reads a saved .mlpackage and evaluates it, on any system.

It takes nothing from the program that was converted: description and weights are read from disk,
as a phone reads them, by code that shares nothing with what wrote them. Arithmetic is float32, and
what the program says is float16 is rounded to it after every operation. So results have the
precision of float16 activations with wide accumulation; the Neural Engine may accumulate in fewer
bits, and Core ML fuses operations, which rounds less often. How far that goes: docs/apple.md.

`open_package` reads what a package says, without PyTorch; `evaluate.load_program` computes it.
"""

from __future__ import annotations

from mvsdk_export.checker.package import Operation, Package, Tensor, open_package

__all__ = ["Operation", "Package", "Tensor", "open_package"]
