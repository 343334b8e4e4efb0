"""What the stages of an export do. Every function runs in a child process (stages.py).

A function takes JSON values and paths of finished stages, writes files into `output` and returns
JSON values. None of them prints.
"""

from __future__ import annotations

from mvsdk_export.work.graphs import (
    evaluate,
    finish,
    finish_part,
    join,
    quantize,
    quantize_part,
    split,
    trace,
)
from mvsdk_export.work.reference import paint, read, record, verify
from mvsdk_export.work.snapdragon import compile_chip, stitch

__all__ = [
    "compile_chip",
    "evaluate",
    "finish",
    "finish_part",
    "join",
    "paint",
    "quantize",
    "quantize_part",
    "read",
    "record",
    "split",
    "stitch",
    "trace",
    "verify",
]
