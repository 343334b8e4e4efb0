"""What tests of the command line need to run it."""

from __future__ import annotations

import pytest

from mvsdk.cli import main

CapSys = pytest.CaptureFixture[str]


def refusal(capsys: CapSys, *argv: str, status: int = 2) -> str:
    """Run a command that must fail; return its one line."""
    assert main(argv) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line
