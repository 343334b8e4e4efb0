"""Operations of ML programs, by the format's description (iOS 15 to 18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mvsdk_export.checker.arguments import Arguments
from mvsdk_export.checker.operations.elementwise import ELEMENTWISE
from mvsdk_export.checker.operations.linear import LINEAR
from mvsdk_export.checker.operations.places import PLACES
from mvsdk_export.checker.operations.reductions import REDUCTIONS
from mvsdk_export.checker.operations.shapes import SHAPES
from mvsdk_export.checker.operations.spatial import SPATIAL

OPERATIONS: Mapping[str, Callable[[Arguments], Any]] = {
    **ELEMENTWISE,
    **LINEAR,
    **PLACES,
    **REDUCTIONS,
    **SHAPES,
    **SPATIAL,
}
