"""Operations of ML programs, by the format's own description of iOS 15 to iOS 18.

One table of type -> function: `binding` says how their parameters are filled. They take and give
tensors; float16 values come as float32, and rounding results is not their affair.

Reference:
    coremltools, converters/mil/mil/ops/defs/iOS15 ... iOS18.
"""

from __future__ import annotations

from collections.abc import Mapping

from mvsdk_export.targets.coreml.checker.binding import Function
from mvsdk_export.targets.coreml.checker.operations.activations import ACTIVATIONS
from mvsdk_export.targets.coreml.checker.operations.constexpr import CONSTEXPR
from mvsdk_export.targets.coreml.checker.operations.elementwise import ELEMENTWISE
from mvsdk_export.targets.coreml.checker.operations.gathering import GATHERING
from mvsdk_export.targets.coreml.checker.operations.linear import LINEAR
from mvsdk_export.targets.coreml.checker.operations.making import MAKING
from mvsdk_export.targets.coreml.checker.operations.reductions import REDUCTIONS
from mvsdk_export.targets.coreml.checker.operations.resizing import RESIZING
from mvsdk_export.targets.coreml.checker.operations.shapes import SHAPES
from mvsdk_export.targets.coreml.checker.operations.slicing import SLICING
from mvsdk_export.targets.coreml.checker.operations.spatial import SPATIAL

__all__ = ["CONSTEXPR", "EXACT", "OPERATIONS"]

OPERATIONS: Mapping[str, Function] = {
    **ACTIVATIONS,
    **ELEMENTWISE,
    **GATHERING,
    **LINEAR,
    **MAKING,
    **REDUCTIONS,
    **RESIZING,
    **SHAPES,
    **SLICING,
    **SPATIAL,
}

EXACT = frozenset(
    {
        *SHAPES,
        *SLICING,
        *("gather", "gather_along_axis", "gather_nd", "topk", "band_part"),
        *(
            "identity",
            "abs",
            "ceil",
            "floor",
            "round",
            "sign",
            "maximum",
            "minimum",
            "select",
            "relu",
        ),
        *("reduce_max", "reduce_min", "max_pool", "upsample_nearest_neighbor"),
        *("resize_nearest_neighbor", "space_to_batch", "batch_to_space"),
    }
)
"""Operations whose results have the precision of what they are given: rounding changes nothing."""
