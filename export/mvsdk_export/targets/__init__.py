"""The targets: each is a folder here and a line in `_PLACES`.

Any other package offers targets of its own as entry points of the group `mvsdk.targets`, each the
name of a target and where its `TargetSpec` is. docs/adding_a_target.md shows a whole one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from mvsdk._text import quoted
from mvsdk_export.errors import ExportError, one_line

if TYPE_CHECKING:
    from mvsdk.manifest import Target
    from mvsdk_export.targets.spec import TargetSpec

_logger = logging.getLogger(__name__)

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
    offered = [point for point in entry_points(group=GROUP) if point.name not in _PLACES]
    return {
        **{name: _resolve(place) for name, place in _PLACES.items()},
        **{point.name: _load(point) for point in offered},
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


def _resolve(place: str) -> TargetSpec[Any]:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def _load(point: EntryPoint) -> TargetSpec[Any]:
    from mvsdk_export.targets.spec import TargetSpec

    try:
        spec: object = point.load()
    except Exception as exc:  # whatever a package of somebody else's raises
        _logger.debug("%s does not load", point.value, exc_info=exc)
        raise ExportError(
            f"the target {quoted(point.name)} does not load from {point.value} ({one_line(exc)}); "
            "correct its package, or uninstall it"
        ) from exc
    if not isinstance(spec, TargetSpec) or spec.name != point.name:
        what = f"the target {quoted(spec.name)}" if isinstance(spec, TargetSpec) else "no target"
        raise ExportError(
            f"{point.value} is {what}, expected a TargetSpec called {quoted(point.name)}; correct "
            "its package"
        )
    return spec
