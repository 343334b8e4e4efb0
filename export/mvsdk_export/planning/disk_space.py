"""Disk space that calibration needs, before any of it is made.

What every network is given and gives is kept for all clips and steps, and so is what crosses the
cuts of a component in parts: of uncompressed Stable Video Diffusion 385 MiB in every evaluation.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from mvsdk._text import quoted
from mvsdk.cli.output import format_bytes
from mvsdk.manifest.programs import count_calls
from mvsdk_export.checkpoints.building import GraphOptions, with_frames
from mvsdk_export.errors import ExportError
from mvsdk_export.families.shapes import graph_sizes, tensor_shapes
from mvsdk_export.planning.costs import estimate_crossing_bytes
from mvsdk_export.planning.plan import ExportPlan
from mvsdk_export.targets.onnx.jobs import EvaluateParts

_KEPT = ("RecordActivations-*", "EvaluateParts-*")
"""Jobs of an earlier run; if it was interrupted, they are found again and not made anew."""


def estimate_calibration_bytes(plan: ExportPlan) -> int:
    """Estimate the bytes that calibration keeps, 0 if nothing is calibrated."""
    if plan.calibration is None:
        return 0
    request = plan.request
    configs = request.folder.configs()
    sizes = graph_sizes(configs, **request.size)
    options = GraphOptions(
        height=request.height, width=request.width, guidance=request.folded_guidance, sigma=1.0
    )
    operations = plan.pipeline.programs[0].operations
    runs: Counter[str] = Counter()
    for steps in request.steps:
        runs += count_calls(operations, plan.pipeline.samplers, steps)
    evaluated = {job.component for job in plan.jobs if isinstance(job, EvaluateParts)}
    clips = len(plan.calibration.prompts)
    total = 0
    for lowering in plan.lowerings:
        component = lowering.component
        tensors = (*component.inputs, *component.outputs)
        one = sum(
            math.prod(shape) * np.dtype(tensor.dtype).itemsize
            for tensor, shape in zip(tensors, tensor_shapes(tensors, sizes), strict=True)
        )
        if component.name in evaluated:
            config = with_frames(configs[component.name], request.num_frames)
            one += estimate_crossing_bytes(component, config, sizes, options, lowering.parts)
        total += one * clips * runs[component.name]
    return total


def check_disk_space(needed_bytes: int, cache: Path) -> None:
    """Refuse a calibration that the disk of the cache cannot hold.

    Args:
        needed_bytes: As `estimate_calibration_bytes` says.
        cache: Folder of finished jobs; it may not exist yet.

    Raises:
        ExportError: If less is free, what earlier runs left of such jobs counted as free.
    """
    place = next(x for x in (cache.absolute(), *cache.absolute().parents) if os.path.isdir(x))
    kept = sum(_bytes_of(path) for name in _KEPT for path in cache.glob(f"{name}/*"))
    free = shutil.disk_usage(place).free + kept
    if needed_bytes > free:
        raise ExportError(
            f"calibration keeps about {format_bytes(needed_bytes)} in {quoted(cache)}, where "
            f"{format_bytes(free)} are free; set MVSDK_CACHE to a folder on a larger disk, or use "
            "fewer --pictures or smaller --steps"
        )


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # another export takes it away, or it is not ours to read
        return 0
