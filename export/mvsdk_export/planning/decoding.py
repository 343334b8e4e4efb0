"""How many frames of a clip the decoder takes at once, where nobody says so.

A decoder takes the more memory the more frames it gets, and a whole clip may be more than a process
on the HTP has. Parts are clips of their own to it, so as few are made as fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mvsdk.devices import HTP_PROCESS_LIMIT_BYTES
from mvsdk.manifest import Precision
from mvsdk_export.families import DECODER, Recipe
from mvsdk_export.planning.costs import measure_decoder
from mvsdk_export.planning.preflight import HTP_PRECISIONS, equal_parts, fits_process
from mvsdk_export.planning.request import ExportRequest


def choose_decode_frames(
    recipe: Recipe,
    configs: Mapping[str, Any],
    *,
    num_frames: int,
    height: int,
    width: int,
    precisions: Sequence[Precision],
) -> int:
    """Return the largest divisor of a clip's frames that a process on the HTP can decode at once.

    Args:
        recipe: The model.
        configs: Component name -> configuration of its network.
        num_frames: Frames of a clip.
        height: Pixels.
        width: Pixels.
        precisions: What Snapdragon chips shall compute in; nothing else has a limit.

    Returns:
        1 for a decoder that knows no time, which takes least memory so; for others all frames if
        they fit, and 1 if not even one does, which `preflight_costs` then refuses.

    Raises:
        CheckpointError: If the configuration describes no network that can be built.
        ExportError: If the decoder cannot run at this size.
    """
    if recipe.decodes_frames_apart:
        return 1
    limited: list[Precision] = [x for x in HTP_PRECISIONS if x in precisions]
    if not limited or not _decodes_parts(recipe):
        return num_frames
    for count in reversed(equal_parts(num_frames)):
        decoder = measure_decoder(
            recipe,
            configs,
            num_frames=num_frames,
            height=height,
            width=width,
            decode_frames=count,
        )
        if all(fits_process(decoder, precision) for precision in limited):
            return count
    return 1


def _decodes_parts(recipe: Recipe) -> bool:
    """Return whether the size of a model's decoder depends on how many frames it takes at once."""
    decoders = [part for part in recipe.components if part.name == DECODER]
    return any("f" in tensor.shape for part in decoders for tensor in part.inputs)


def with_decode_frames(request: ExportRequest) -> ExportRequest:
    """Return the request with the number of frames that are decoded at once.

    Raises:
        CheckpointError: As `choose_decode_frames`; so ExportError.
    """
    if request.decode_frames is not None:
        return request
    chosen = choose_decode_frames(
        request.folder.recipe,
        request.folder.configs(),
        num_frames=request.num_frames,
        height=request.height,
        width=request.width,
        precisions=request.chip_precisions,
    )
    return replace(request, decode_frames=chosen)


def describe_parts(recipe: Recipe, num_frames: int, at_once: int, *, chosen: bool) -> list[str]:
    """Return a line that says how clips are decoded; none where they are decoded whole.

    Args:
        recipe: The model.
        num_frames: Frames of a clip.
        at_once: Frames that are decoded at once.
        chosen: Whether nobody said how many.
    """
    if at_once == num_frames:
        return []
    frames = f"{at_once} frame{'s' * (at_once > 1)}"
    line = f"clips are decoded in {num_frames // at_once} parts of {frames}"
    if chosen and recipe.decodes_frames_apart:
        line += ", as the decoder knows no time; see --decode-frames"
    elif chosen:
        line += f", as many as {HTP_PROCESS_LIMIT_BYTES / 1e9:g} GB (HTP) hold; see --decode-frames"
    return [line]
