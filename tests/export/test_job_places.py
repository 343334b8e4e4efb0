"""What jobs ask of the place they run in: modules that are imported before them, and memory."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import mvsdk_export
from mvsdk_export.jobs import memory
from mvsdk_export.jobs.job import Job

ROOT = Path(mvsdk_export.__file__).parent
MODULES = [
    ".".join(("mvsdk_export", *path.relative_to(ROOT).with_suffix("").parts))
    for path in sorted(ROOT.rglob("jobs.py"))
]
GIB = 1 << 30


def job_classes() -> list[type[Job[Any]]]:
    for name in MODULES:
        import_module(name)
    found = [kind for kind in Job.__subclasses__() if kind.__module__ in MODULES]
    return sorted(found, key=lambda kind: kind.__qualname__)


# --- modules that a warm process imports --------------------------------------------------------


def test_every_target_has_jobs() -> None:
    assert {name.split(".")[2] for name in MODULES if ".targets." in name} == {
        *("onnx", "snapdragon", "coreml", "coreai", "executorch"),
    }


@pytest.mark.parametrize("kind", job_classes(), ids=lambda kind: kind.__qualname__)
def test_what_is_imported_before_a_job_exists(kind: type[Job[Any]]) -> None:
    """The warm process passes over what it cannot import: a renamed module would only cost time."""
    for name in kind.PRELOAD:
        if not name.startswith("mvsdk"):
            pytest.importorskip(name.partition(".")[0])
        assert find_spec(name) is not None, name


# --- memory -------------------------------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a container on a machine with 8 GiB available."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_available_bytes", lambda: 8 * GIB)
    return tmp_path


def write_group(folder: Path, limit: str, taken: int, cached: int) -> None:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")


def test_the_machine_decides_where_no_container_does(group: Path) -> None:
    assert memory.free_bytes() == 8 * GIB
    write_group(group, "max", 3 * GIB, 0)
    assert memory.free_bytes() == 8 * GIB
    write_group(group, str(64 * GIB), 3 * GIB, 0)
    assert memory.free_bytes() == 8 * GIB


def test_a_container_lets_take_what_is_left_and_what_it_caches_of_files(group: Path) -> None:
    write_group(group, str(4 * GIB), 3 * GIB, GIB // 2)
    assert memory.free_bytes() == 3 * GIB // 2
    write_group(group, str(4 * GIB), 5 * GIB, 0)
    assert memory.free_bytes() == 0


def test_where_nobody_tells_there_are_four_gib(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_available_bytes", lambda: None)
    assert memory.free_bytes() == 4 * GIB
    write_group(group, "1", 0, 0)
    assert memory.free_bytes() == 1


def test_this_machine_tells() -> None:
    assert memory.free_bytes() > 0
