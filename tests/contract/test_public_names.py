"""What modules offer: a docstring each, and an `__all__` that tells the truth."""

from __future__ import annotations

import ast
import importlib
import importlib.util

import pytest
from source_tree import Module, modules_of

RUNTIME = tuple(modules_of("mvsdk").values())
TOOLCHAIN = tuple(modules_of("mvsdk_export").values())


def _listed(module: Module) -> list[str] | None:
    """Return the literal `__all__` of a module; None if it has none."""
    for statement in module.tree().body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
            case ast.AugAssign(target=ast.Name(id="__all__")):
                pytest.fail(f"{module.name}: __all__ is put together, it should be one literal")
    return None


def _defined(module: Module) -> set[str]:
    """Return the public names that a module itself makes."""
    names: set[str] = set()
    for statement in module.tree().body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return {name for name in names if not name.startswith("_")}


def _passed_on(module: Module) -> set[str]:
    """Return the names that a module has from other modules of the project."""
    ours = [item for item in module.imports() if item.package in ("mvsdk", "mvsdk_export")]
    return {item.name.rpartition(".")[2] for item in ours}


LISTING = [module for module in (*RUNTIME, *TOOLCHAIN) if _listed(module) is not None]


@pytest.mark.parametrize("module", [*RUNTIME, *TOOLCHAIN], ids=lambda module: module.name)
def test_every_module_says_what_it_is(module: Module) -> None:
    assert (ast.get_docstring(module.tree()) or "").strip()


@pytest.mark.parametrize("module", LISTING, ids=lambda module: module.name)
def test_a_list_of_public_names_is_complete_and_has_no_strangers(module: Module) -> None:
    listed = _listed(module) or []
    assert len(listed) == len(set(listed))
    assert _defined(module) - set(listed) == set()
    assert set(listed) - _defined(module) - _passed_on(module) <= {"__version__"}


@pytest.mark.parametrize("module", RUNTIME, ids=lambda module: module.name)
def test_every_module_of_the_runtime_loads_with_its_names(module: Module) -> None:
    if module.name == "mvsdk.__main__":
        assert importlib.util.find_spec(module.name) is not None  # loading it runs the command
        return
    loaded = importlib.import_module(module.name)
    assert [name for name in _listed(module) or [] if not hasattr(loaded, name)] == []


@pytest.mark.torch
@pytest.mark.parametrize("module", TOOLCHAIN, ids=lambda module: module.name)
def test_every_module_of_the_toolchain_loads_with_its_names(module: Module) -> None:
    pytest.importorskip("torch", reason="needs the extra export")
    loaded = importlib.import_module(module.name)
    assert [name for name in _listed(module) or [] if not hasattr(loaded, name)] == []
