"""The public face: light to import, and complete."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest

import mvsdk

HEAVY = (
    *("onnxruntime", "onnxruntime_qnn", "executorch", "coreai", "coremltools"),
    *("PIL", "av", "torch", "onnx", "mvsdk_export"),
)


def _python(code: str) -> Any:
    """Run code in a fresh interpreter and return what it prints as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "code",
    [
        "import mvsdk",
        "import mvsdk; mvsdk.load, mvsdk.Pipeline, mvsdk.Video, mvsdk.OnnxRuntime, mvsdk.Qnn",
        "import mvsdk; mvsdk.ExecuTorch(), mvsdk.CoreAI()",
        "import mvsdk.cli",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    modules = _python(f"{code}; import sys, json; print(json.dumps(sorted(sys.modules)))")
    assert [name for name in HEAVY if name in modules] == []
    assert "mvsdk" in modules


def test_import_takes_less_than_half_a_second_of_processor_time() -> None:
    # Processor time, not the clock's: a busy machine must not fail the test.
    code = (
        "import time; start = time.process_time(); import mvsdk; mvsdk.load; "
        "print(time.process_time() - start)"
    )
    assert min(float(_python(code)) for _ in range(3)) < 0.5


def test_every_public_name_is_importable_and_no_name_is_twice() -> None:
    assert len(set(mvsdk.__all__)) == len(mvsdk.__all__)
    for name in mvsdk.__all__:
        assert getattr(mvsdk, name) is not None
    assert set(mvsdk.__all__) <= set(dir(mvsdk))


def test_public_names_are_the_ones_of_their_modules() -> None:
    homes: dict[str, str] = mvsdk._HOMES
    assert set(homes) == set(mvsdk.__all__) - {"__version__"}
    for name, home in homes.items():
        value = getattr(importlib.import_module(home), name)
        assert getattr(mvsdk, name) is value
        assert getattr(value, "__module__", home) == home


def test_type_checkers_see_every_public_name() -> None:
    """The imports for type checkers and the table for run time name the same things."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(mvsdk.__file__).read_text("utf-8"))
    shown = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert shown == mvsdk._HOMES


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mvsdk.nothing  # noqa: B018


def test_errors_are_one_tree() -> None:
    for name in ("BackendError", "BundleError", "InputError", "OutputError", "ScheduleError"):
        assert issubclass(getattr(mvsdk, name), mvsdk.MvsdkError)
    assert issubclass(mvsdk.InputError, ValueError)
