"""What tests of the documentation share; they want the toolchain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "export"))  # small models that stand in for large


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of this folder."""
    config.addinivalue_line("markers", "docs: runs what README.md or a page of docs/ prints")
    config.addinivalue_line("markers", "long: takes more than a minute (make docs runs it)")
