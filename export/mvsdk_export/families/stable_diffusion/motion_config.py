"""Which temporal layers a folder of motion modules holds, and whether they fit a denoiser."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mvsdk._text import quoted
from mvsdk_export.errors import CheckpointError
from mvsdk_export.families.public import Values

MAX_LAYERS = 8
"""Most transformer layers of a motion module: each costs time to build."""
MAX_FRAMES = 256
"""Most places that frames may have."""
DEFAULT_FRAMES = 16
"""Frames of a clip, where nobody says; AnimateDiff was trained with these."""
SD_WIDTHS = (320, 640, 1280, 1280)
SD1_TEXT = 768
"""Channels of the text that Stable Diffusion 1.x attends to. Motion modules of its widths fit the
tensors of 2.x as well, which they were not trained for."""


def read_motion(
    document: Values, shapes: Mapping[str, tuple[int, ...]], config: Any
) -> Mapping[str, object]:
    """Return the fields of a denoiser's configuration that motion modules decide.

    Args:
        document: config.json of the motion modules; empty for those of a single file, which has
            none: the weights say what they can, and the library's defaults the rest.
        shapes: Of their weights, by name; empty where there are none, to plan without.
        config: `UNetConfig` of the denoiser without motion.

    Raises:
        CheckpointError: If they were made for another denoiser.
    """
    widths = tuple(config.block_out_channels)
    levels = len(widths)
    made_for = _widths_of(shapes) if shapes else _said_widths(document)
    where = quoted(document.path)
    if made_for != widths:
        raise CheckpointError(
            f"the motion modules of {where} are for a denoiser of widths {_listed(made_for)}, "
            f"expected {_listed(widths)}, those of the checkpoint; choose motion modules that "
            "were made for it"
        )
    if widths == SD_WIDTHS and config.cross_attention_dim != SD1_TEXT:
        raise CheckpointError(
            f"the motion modules of {where} are for Stable Diffusion 1.x, whose text has "
            f"{SD1_TEXT} channels, that of the checkpoint has {config.cross_attention_dim}, as "
            "2.x has; choose a checkpoint of 1.x"
        )
    layers = [int(count) for count in config.layers_per_block]
    made_layers = (
        _layers_of(shapes)
        if shapes
        else _whole(document, "motion_layers_per_block", 2, levels, MAX_LAYERS)
    )
    if made_layers != layers:
        raise CheckpointError(
            f"the motion modules of {where} are for {_listed(made_layers)} layers in the blocks "
            f"of a denoiser, the checkpoint has {_listed(layers)}; choose motion modules that were "
            "made for it"
        )
    # diffusers gives its motion modules the groups of the denoiser, whatever their own file says.
    document.check_fixed({"motion_norm_num_groups": config.norm_groups})
    heads = _whole(document, "motion_num_attention_heads", 8, levels, max(widths))
    for key in ("motion_mid_block_layers_per_block", "motion_transformer_layers_per_mid_block"):
        document.check_fixed({key: 1})
    said = document.values.get("motion_max_seq_length", 32)
    if type(said) is not int or not 1 <= said <= MAX_FRAMES:
        document.fail("motion_max_seq_length", f"a whole number of 1 to {MAX_FRAMES}")
    places = [
        shape[1]
        for name, shape in shapes.items()
        if name.endswith("pos_embed.pe") and len(shape) == 3  # (1, places, width)
    ]
    most = min([said, *places])
    if most < 1:
        raise CheckpointError(
            f"the motion modules of {where} know no place of a frame; download them again"
        )
    middle = document.values.get("use_motion_mid_block", True)
    if type(middle) is not bool:
        document.fail("use_motion_mid_block", "true or false")
    return {
        "temporal_layers": "motion",
        "num_frames": min(DEFAULT_FRAMES, most),
        "motion_heads": tuple(heads),
        "motion_transformer_layers": tuple(
            _whole(document, "motion_transformer_layers_per_block", 1, levels, MAX_LAYERS)
        ),
        "motion_mid_block": any(name.startswith("mid_block.") for name in shapes)
        if shapes
        else middle,
        "motion_norm_groups": config.norm_groups,
        "motion_max_frames": most,
    }


_NORM = re.compile(r"down_blocks\.(\d{1,2})\.motion_modules\.(\d{1,2})\.norm\.weight")


def _widths_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    found = {
        int(m[1]): shape[0]
        for name, shape in shapes.items()
        if shape and (m := _NORM.fullmatch(name))
    }
    return tuple(width for _, width in sorted(found.items()))


def _layers_of(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    blocks = Counter(int(m[1]) for name in shapes if (m := _NORM.fullmatch(name)))
    return [count for _, count in sorted(blocks.items())]


def _said_widths(document: Values) -> tuple[int, ...]:
    value = document.values.get("block_out_channels", list(SD_WIDTHS))
    items = cast("list[object]", value) if isinstance(value, list) else []
    if not items or any(type(item) is not int for item in items):
        document.fail("block_out_channels", "a list of widths")
    return tuple(cast("list[int]", items))


def _whole(document: Values, key: str, default: int, levels: int, most: int) -> list[int]:
    """Return a number for each level, of a key that has one, or one for each; 1 to `most`."""
    value = document.values.get(key, default)
    values = cast("list[object]", value) if isinstance(value, list) else [value] * levels
    if len(values) != levels or any(type(x) is not int or not 1 <= x <= most for x in values):
        document.fail(key, f"a whole number of 1 to {most}, or one for each of {levels} levels")
    return cast("list[int]", values)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "none"
