"""What other packages offer by entry points: loaded with care, and refused in one line."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from typing import TypeVar

from mvsdk._text import quoted
from mvsdk_export.errors import ExportError, one_line

_logger = logging.getLogger(__name__)


N = TypeVar("N")


def load_offer(point: EntryPoint, kind: type[N], word: str) -> N:
    """Return what an entry point names.

    Args:
        point: The entry point.
        kind: Class of what it must be, which has a `name`.
        word: What people call that, such as "recipe".

    Raises:
        ExportError: If it does not load, or is something else, or is called otherwise.
    """
    try:
        offer: object = point.load()
    except Exception as exc:  # whatever a package of somebody else's raises
        _logger.debug("%s does not load", point.value, exc_info=exc)
        raise ExportError(
            f"the {word} {quoted(point.name)} does not load from {point.value} "
            f"({one_line(exc)}); correct its package, or install it again"
        ) from exc
    is_kind = isinstance(offer, kind)
    name = getattr(offer, "name", "")
    if is_kind and name == point.name:
        return offer
    what = f"the {word} {quoted(name)}" if is_kind else f"a {type(offer).__name__}"
    raise ExportError(
        f"{point.value} is {what}, expected a {kind.__name__} called {quoted(point.name)}; "
        "correct its package"
    )
