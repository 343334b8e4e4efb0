"""What is installed beside this package, asked without importing it."""

from __future__ import annotations

import importlib.metadata


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
