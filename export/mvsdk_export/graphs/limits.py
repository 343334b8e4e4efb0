"""Limits of files that hold graphs."""

from __future__ import annotations

PROTOBUF_LIMIT_BYTES = (2 << 30) - 1
"""Largest protobuf message, so the largest .onnx with its weights inside."""
PART_BYTES = 3 << 29
"""Float32 weights above which a graph is cut into parts: 1.5 GiB. Parts that are not quite equal
then stay below protobuf's 2 GiB, and what converts, quantises or compiles one of them took less
than 8 GiB of memory (docs/npu_forms.md)."""
