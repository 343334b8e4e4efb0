"""A launcher whose warm process outlives an export: the next one of the session finds it."""

from __future__ import annotations

from typing import Any, ClassVar

from mvsdk_export.jobs import process, runner
from mvsdk_export.jobs.process import Launcher

_OF_ONE_EXPORT = ("MVSDK_CACHE", "PYTEST_CURRENT_TEST")
"""Variables that no job reads."""


class LastingLauncher(Launcher):
    """Gives back the warm process when an export is over, unless its variables were others."""

    _kept: ClassVar[dict[tuple[tuple[str, str], ...], Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        found = process._environment()
        self._key = tuple(sorted(x for x in found.items() if x[0] not in _OF_ONE_EXPORT))
        self._source = self._kept.pop(self._key, None)

    def close(self) -> None:
        source, self._source = self._source, None
        if source is not None and not source.ended and self._key not in self._kept:
            self.end_all()
            self._kept[self._key] = source
        elif source is not None:
            source.close()

    @classmethod
    def end_all(cls) -> None:
        """End what is kept."""
        while cls._kept:
            cls._kept.popitem()[1].close()


def is_replaced() -> bool:
    """Return whether a test has a launcher of its own."""
    return runner.Launcher is not Launcher
