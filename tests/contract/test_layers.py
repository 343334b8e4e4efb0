"""Layers go one way. Read from the sources, so that nothing has to be installed to see it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from source_tree import Import, Module, loaded_with, modules_in, modules_of

RUNTIME = tuple(modules_of("mvsdk").values())
TOOLCHAIN = tuple(modules_of("mvsdk_export").values())
BENCHMARKS = tuple(modules_of("benchmarks").values())

RUNTIME_MAY_IMPORT = {
    *("mvsdk", "numpy", "onnxruntime", "onnxruntime_qnn", "PIL", "av"),
    *("coreai", "executorch"),
}
SOME_MAY_IMPORT = {
    "mvsdk.backends.executorch": {"torch"},
    "mvsdk.backends.coreml": {"coremltools"},
    "mvsdk.cli.completion": {"shtab"},
}
"""Module -> what else it may import: ExecuTorch takes tensors of PyTorch, and gives such; Core ML
is called by coremltools; shtab writes scripts for shells, and is asked for where it is missing."""
RUNTIME_MAY_LOAD = {"mvsdk", "numpy"}
LIGHT_MAY_LOAD = {"mvsdk", "mvsdk_export", "numpy"}
LIGHT = re.compile(
    r"mvsdk_export\.(cli|errors|extras|findings|offers|families|jobs|targets"
    r"|commands(\.\w+)?|jobs\.\w+|parity\.jobs|families(\.\w+)?\.recipe"
    r"|targets\.(spec|options|artefact)|targets\.\w+\.(spec|jobs|models))"
)
"""What `mvsdk --help`, lists of models and targets, and plans of jobs load."""

ROOMS = (
    *("errors", "quiet", "extras", "findings", "offers"),
    *("jobs", "layers", "families", "checkpoints", "graphs", "quantize"),
    *("targets", "parity", "planning", "compress"),
    *("assemble", "export", "training", "commands", "cli"),
)
"""Rooms of the toolchain: each imports from those before it, and from itself."""


def _name(module: Module) -> str:
    return module.name


def _foreign(imports: list[Import], allowed: set[str]) -> list[str]:
    """Return what is neither allowed nor of the standard library."""
    known = allowed | sys.stdlib_module_names
    return [f"line {item.line}: {item.name}" for item in imports if item.package not in known]


@pytest.mark.parametrize("module", RUNTIME, ids=_name)
def test_the_runtime_imports_only_what_a_thin_install_has(module: Module) -> None:
    allowed = RUNTIME_MAY_IMPORT | SOME_MAY_IMPORT.get(module.name, set())
    assert _foreign(module.imports(), allowed) == []


@pytest.mark.parametrize("module", RUNTIME, ids=_name)
def test_loading_the_runtime_loads_nothing_heavy(module: Module) -> None:
    loaded = [item for item in module.imports() if item.at_load]
    assert _foreign(loaded, RUNTIME_MAY_LOAD) == []


@pytest.mark.parametrize("module", TOOLCHAIN, ids=_name)
def test_the_toolchain_knows_no_benchmarks_and_no_tests(module: Module) -> None:
    packages = {item.package for item in module.imports()}
    assert packages & {"benchmarks", "tests"} == set()


@pytest.mark.parametrize("module", BENCHMARKS, ids=_name)
def test_benchmarks_know_no_tests(module: Module) -> None:
    assert "tests" not in {item.package for item in module.imports()}


@pytest.mark.parametrize("module", [x for x in TOOLCHAIN if LIGHT.fullmatch(x.name)], ids=_name)
def test_light_modules_of_the_toolchain_load_no_framework(module: Module) -> None:
    known = LIGHT_MAY_LOAD | sys.stdlib_module_names
    found = loaded_with(module.name, modules_of("mvsdk_export"))
    heavy = {x: who for x, who in found.items() if x.partition(".")[0] not in known}
    assert heavy == {}


def test_there_are_light_modules_of_every_kind() -> None:
    light = {x.name for x in TOOLCHAIN if LIGHT.fullmatch(x.name)}
    assert len([name for name in light if name.endswith(".spec")]) >= 6
    assert len([name for name in light if name.endswith(".recipe")]) >= 4
    assert {"mvsdk_export.cli", "mvsdk_export.jobs.runner", "mvsdk_export.parity.jobs"} <= light


def _room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("module", TOOLCHAIN, ids=_name)
def test_rooms_of_the_toolchain_import_from_those_below(module: Module) -> None:
    room = _room(module.name)
    if not room:
        return
    allowed = {"", "__version__", *ROOMS[: ROOMS.index(room) + 1]}
    own = [item for item in module.imports() if item.package == "mvsdk_export"]
    above = [f"line {x.line}: {x.name}" for x in own if _room(x.name) not in allowed]
    assert above == []


def test_every_room_is_in_its_place() -> None:
    assert {_room(module.name) for module in TOOLCHAIN} - {""} == set(ROOMS)


def _package(folder: Path, **sources: str) -> dict[str, Module]:
    for name, source in {"__init__": "", **sources}.items():
        path = folder.joinpath("p", *name.split("__in__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")
    return modules_in("p", folder)


def test_imports_are_seen_wherever_they_stand(tmp_path: Path) -> None:
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import checked\nelse:\n    import unchecked\n"
        "try:\n    import tried.deep as t\nexcept ImportError:\n    pass\n"
        "class A:\n    import inside\n    def f(self):\n        from late import name\n"
        "import importlib\nimportlib.import_module('spelt.out')\n"
        "from . import sibling\nfrom .other import thing\n"
    )
    imports = _package(tmp_path, m=source)["p.m"].imports()
    assert {item.name: item.at_load for item in imports} == {
        "typing.TYPE_CHECKING": True,
        "checked": False,
        "unchecked": True,
        "tried.deep": True,
        "inside": True,
        "late.name": False,
        "importlib": True,
        "spelt.out": True,
        "p.sibling": True,
        "p.other.thing": True,
    }


def test_what_a_module_loads_is_followed_through_the_package(tmp_path: Path) -> None:
    modules = _package(
        tmp_path,
        a="from p.b import x",
        b="from p import c\ndef f():\n    import never",
        c="import heavy",
        d="import elsewhere",
    )
    found = loaded_with("p.a", modules)
    assert found["heavy"] == "p.c:1"
    assert not {"never", "elsewhere"} & set(found)


def test_loading_a_module_counts_the_packages_around_it(tmp_path: Path) -> None:
    modules = _package(tmp_path, sub__in____init__="import heavy", sub__in__light="", a="")
    assert loaded_with("p.sub.light", modules) == {"heavy": "p.sub:1"}
    assert loaded_with("p.a", modules) == {}
