"""What tests of the documentation share; they want the toolchain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for folder in ("export", "runtime"):  # small models that stand in for large
    sys.path.append(str(Path(__file__).parents[1] / folder))


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of this folder."""
    config.addinivalue_line("markers", "docs: runs what README.md or a page of docs/ prints")
    config.addinivalue_line("markers", "long: takes more than a minute (make docs runs it)")
