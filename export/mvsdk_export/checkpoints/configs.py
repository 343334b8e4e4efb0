"""config.json: a network's configuration dataclass, field by field.

The dataclass is the schema: its names, types and defaults decide what a file may hold. Types in
use are int, float, bool, str and tuples of these, of fixed length or of any (`tuple[int, ...]`).
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields
from typing import Any, cast, get_args, get_origin, get_type_hints

from mvsdk_export.checkpoints.documents import Document

MAX_SIZE = 1 << 20
"""Largest width, length or vocabulary."""
MAX_BLOCKS = 256
"""Largest number of blocks or layers: each costs time to build, whatever the weights are."""
MAX_PER_BLOCK = 8
"""Largest number of layers of each of several blocks."""
MAX_LEVELS = 8
"""Most items of a list of any length: resolutions of a network."""
MAX_FRAMES = 256
"""Largest number of frames of a clip: each costs time when a graph is traced, and in some networks
already when they are built."""
MAX_SLOTS = 64
"""Largest number of pictures of a memory: a graph has a branch for each."""


def parse_config(document: Document, config_class: type) -> Any:
    """Build a configuration from config.json.

    Args:
        document: The file.
        config_class: Frozen dataclass.

    Raises:
        CheckpointError: With the first field that is unknown, missing or of the wrong type.
    """
    required = [f.name for f in fields(config_class) if f.default is MISSING]
    optional = [f.name for f in fields(config_class) if f.default is not MISSING]
    document.check_keys(required, optional)
    hints = get_type_hints(config_class)
    off = {f.name for f in fields(config_class) if f.default == 0}
    return config_class(
        **{key: _value(document, key, hints[key], off=key in off) for key in document.values}
    )


def config_to_document(config: Any) -> dict[str, object]:
    """Return what is written to config.json."""
    return asdict(config)


def _value(document: Document, key: str, hint: Any, *, off: bool = False) -> object:
    """Read one value; `off` allows the integer 0, with which a part is left out."""
    if get_origin(hint) is tuple:
        kinds, value = get_args(hint), document.values[key]
        items = cast("list[object]", value) if isinstance(value, list) else []
        if Ellipsis in kinds:
            if not 1 <= len(items) <= MAX_LEVELS:
                document.fail(key, f"a list of 1 to {MAX_LEVELS}")
            kinds = kinds[:1] * len(items)
        if not isinstance(value, list) or len(items) != len(kinds):
            document.fail(key, f"a list of {len(kinds)}")
        parts = {f"{key}[{index}]": item for index, item in enumerate(items)}
        inner = Document(document.path, parts)
        return tuple(_value(inner, part, kind) for part, kind in zip(parts, kinds, strict=True))
    if hint is int:
        return document.integer(key, 0 if off else 1, _largest(key))
    if hint is float:
        return document.number(key, above=0.0, most=1e6)
    if hint is bool:
        return document.boolean(key, default=False)
    return document.text(key)


_LARGEST = {"num_frames": MAX_FRAMES, "memory_slots": MAX_SLOTS}


def _largest(key: str) -> int:
    key = key.partition("[")[0]  # an item of a list
    if key.endswith("layers_per_block"):
        return MAX_PER_BLOCK
    if key in _LARGEST:
        return _LARGEST[key]
    return MAX_BLOCKS if key.endswith(("blocks", "layers")) else MAX_SIZE
