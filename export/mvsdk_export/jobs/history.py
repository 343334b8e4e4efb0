"""What stages took in earlier runs: a small file in the cache folder, for estimates alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from mvsdk._staging import replacing

FILE = "seconds.json"
MOST_STAGES = 1000
"""Those that ended last are kept."""
_MOST_BYTES = 1 << 20
_MOST_LETTERS = 200
_MOST_SECONDS = 30 * 24 * 3600.0


class History:
    """Seconds by stage. No fault of the file is an error: it is then as if nothing was known."""

    def __init__(self, path: Path | None) -> None:
        """Use a file; None knows nothing and keeps nothing."""
        self._path = path
        self._seconds = _read(path)

    def seconds_of(self, stage: str) -> float | None:
        """Return what a stage took when it ran last; None if that is not known."""
        return self._seconds.get(stage[:_MOST_LETTERS])

    def add(self, stage: str, seconds: float) -> None:
        """Note what a stage took, beside what other runs have noted meanwhile."""
        added = {stage[:_MOST_LETTERS]: round(seconds, 3)}
        self._seconds.update(added)
        if self._path is None:
            return
        kept = {name: s for name, s in _read(self._path).items() if name not in added} | added
        newest = list(kept.items())[-MOST_STAGES:]
        with contextlib.suppress(OSError):  # no room, say; the next run estimates without it
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_text(json.dumps(dict(newest), indent=0), encoding="utf-8")


def _read(path: Path | None) -> dict[str, float]:
    """Return what a file says, as far as it can be believed."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        found = json.loads(text) if len(text) <= _MOST_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, Mapping):
        return {}
    return {
        name: float(seconds)
        for name, seconds in list(found.items())[-MOST_STAGES:]
        if isinstance(seconds, int | float) and 0 <= seconds <= _MOST_SECONDS
    }
