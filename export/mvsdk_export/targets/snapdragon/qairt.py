"""The version of Qualcomm's runtime that a context binary needs: that of its compiler."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_BUILD = re.compile(rb"v(2\.[0-9]{1,4}\.[0-9]{1,4})\.[0-9]{6,}")
"""How a context binary names its compiler, such as v2.51.0.260929181845."""


def read_qairt_version(paths: Iterable[Path]) -> str | None:
    """Return the newest version that made some context binaries.

    A context opens in no older runtime than its compiler's (error 5000).

    Args:
        paths: Context binaries.

    Returns:
        Such as "2.51.0"; None if none names its compiler.
    """
    versions = {found[1].decode() for path in paths for found in _BUILD.finditer(path.read_bytes())}
    return max(versions, key=lambda text: tuple(map(int, text.split("."))), default=None)
