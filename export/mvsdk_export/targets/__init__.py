"""The targets: each is a folder here and a line in `_PLACES`.

Any other package offers targets of its own as entry points of the group `mvsdk.targets`, each the
name of a target and where its `TargetSpec` is. docs/adding_a_target.md shows a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mvsdk_export.families.recipe import resolve
from mvsdk_export.offers import load_offer

if TYPE_CHECKING:
    from mvsdk.manifest import Target
    from mvsdk_export.targets.spec import TargetSpec

GROUP = "mvsdk.targets"
"""Entry points of other packages."""

_PLACES: Mapping[str, str] = {
    "onnx": "mvsdk_export.targets.onnx.spec:ONNX",
    "snapdragon": "mvsdk_export.targets.snapdragon.spec:SNAPDRAGON",
    "coreml": "mvsdk_export.targets.coreml.spec:COREML",
    "coreai": "mvsdk_export.targets.coreai.spec:COREAI",
    "executorch": "mvsdk_export.targets.executorch.spec:EXECUTORCH",
}
"""Name -> where the spec is. No other package replaces one of them."""


@cache
def target_specs() -> Mapping[str, TargetSpec[Any]]:
    """Return all targets by name, those of other packages last.

    Raises:
        ExportError: If the package that offers one is broken.
    """
    from mvsdk_export.targets.spec import TargetSpec  # which imports this package

    offered = [point for point in entry_points(group=GROUP) if point.name not in _PLACES]
    return {
        **{name: resolve(place) for name, place in _PLACES.items()},
        **{point.name: load_offer(point, TargetSpec, "target") for point in offered},
    }


def find_spec(name: str) -> TargetSpec[Any]:
    """Return the target of a name.

    Raises:
        KeyError: If there is none.
    """
    return target_specs()[name]


def specs_of(target: Target) -> list[TargetSpec[Any]]:
    """Return the formats of a target that `--target` names."""
    return [spec for spec in target_specs().values() if spec.target == target]
