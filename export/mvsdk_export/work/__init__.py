"""What the stages of an export do. Every function runs in a child process (stages.py).

A function takes JSON values and paths of finished stages, writes files into `output` and returns
JSON values. None of them prints.
"""

from __future__ import annotations

from mvsdk_export.work.apple import (
    compress_coreml,
    convert_coreml,
    finish_coreml,
    lower_coreai,
)
from mvsdk_export.work.executorch import lower_executorch
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
    "compress_coreml",
    "convert_coreml",
    "evaluate",
    "finish",
    "finish_coreml",
    "finish_part",
    "join",
    "lower_coreai",
    "lower_executorch",
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
