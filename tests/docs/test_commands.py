"""Every command and every snippet of README.md and docs/*.md, run as printed.

Those of one page run in its order in one folder, so that a bundle that one makes is there for the
next. What takes longer than MVSDK_DOCS_S seconds (30 unless set) is left out, and what needs it
too, with the reason; of an export that is left out it is asked what it would make. MVSDK_DOCS_TIMES
names a file that gets a line for everything that was run: its seconds, and where it is printed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docs, pytest.mark.torch, pytest.mark.qnn]
pytest.importorskip("torch", reason="needs the extra export")
pytest.importorskip("diffusers", reason="needs the extra dev")

from pages import ROOT, Command, Page, Snippet, read_pages  # noqa: E402
from reader import (  # noqa: E402
    LIMIT_S,
    Reader,
    estimate_s,
    has_shape,
    is_slow,
    make_checkout,
    read_by,
    why_never,
    write_programs,
)
from stand_ins import STAND_INS  # noqa: E402

STEPS = [(page, step) for page in read_pages() for step in page.steps]


def _cases() -> list[object]:
    cases: list[object] = []
    for page, step in STEPS:
        can_run = isinstance(step, Command) and why_never(step) is None
        is_long = can_run and isinstance(step, Command) and estimate_s(step) > LIMIT_S
        marks = [pytest.mark.long] if is_long else []
        marks += [] if page.name == "README.md" else [pytest.mark.exhaustive]
        cases.append(pytest.param(page, step, id=step.label[:100], marks=marks))
    return cases


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """Return who reads which page, to be filled."""
    if not importlib.metadata.entry_points(group="mvsdk.commands"):
        pytest.skip("the distribution is not installed: pip install --editable './export[dev]'")
    write_programs(tmp_path_factory.getbasetemp() / "reader" / "bin")
    return {}


@pytest.fixture
def reader(
    readers: dict[str, Reader], page: Page, tmp_path_factory: pytest.TempPathFactory
) -> Reader:
    """Return who reads this page."""
    if page.name not in readers:
        folder = tmp_path_factory.mktemp(Path(page.name).stem)
        make_checkout(folder)
        named = set[str]().union(*(read_by(step) for step in page.steps))
        for name in STAND_INS.keys() & named:
            STAND_INS[name](folder / name)
        cache = tmp_path_factory.getbasetemp() / "reader"
        readers[page.name] = Reader(page=page, folder=folder, cache=cache)
    return readers[page.name]


@pytest.mark.parametrize(("page", "step"), _cases())
def test_what_a_page_says_works(page: Page, step: Command | Snippet, reader: Reader) -> None:
    del page
    if (why := reader.why_not(step)) is not None:
        reader.leave_out(step, why)
        if isinstance(step, Command) and _can_be_asked(reader, step):
            status, said = reader.try_out(step)
            assert status == 0, said
            why += "; --dry-run says that it is possible"
        pytest.skip(why)
    started = time.monotonic()
    done = reader.run(step)
    _note(step, time.monotonic() - started, done.returncode)
    if done.returncode:
        reader.leave_out(step, "it failed")
    assert done.returncode == 0, f"{step.label}\n{done.stdout}{done.stderr}"
    if isinstance(step, Command) and step.output is not None:
        assert has_shape(done.stdout, step.output), f"{step.label} printed\n{done.stdout}"


def _can_be_asked(reader: Reader, step: Command) -> bool:
    is_export = step.text.startswith("mvsdk export")
    return is_export and is_slow(step) and reader.lacks(step) is None


def _note(step: Command | Snippet, seconds: float, status: int) -> None:
    if path := os.environ.get("MVSDK_DOCS_TIMES"):
        row = {"seconds": round(seconds, 1), "status": status, "step": step.label}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@pytest.fixture(scope="module")
def type_errors(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what pyright, as users have it, says of the snippets of all pages."""
    pytest.importorskip("pyright", reason="needs the extra dev")
    folder = tmp_path_factory.mktemp("snippets")
    for name in STAND_INS:
        if name.endswith(".py"):
            STAND_INS[name](folder / name)
    for page, step in STEPS:
        if isinstance(step, Snippet):
            name = f"{_module(page)}_{step.line}.py"
            (folder / name).write_text(step.text, encoding="utf-8")
    settings = {
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT), str(ROOT / "export")],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout.replace(f"{folder}{os.sep}", "")


def _module(page: Page) -> str:
    return Path(page.name).stem.lower()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name)
        for page in read_pages()
        if any(isinstance(step, Snippet) for step in page.steps)
    ],
)
def test_snippets_pass_a_type_checker(page: Page, type_errors: str) -> None:
    lines = type_errors.splitlines()
    said = [x for x in lines if x.strip().startswith(f"{_module(page)}_") and "- error" in x]
    assert not said, type_errors
