"""The source files of the project, and what each of them imports, read without importing any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {"mvsdk": ROOT, "mvsdk_export": ROOT / "export", "benchmarks": ROOT}
"""Package -> the folder that holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported name, absolute: `from a.b import c` is `a.b.c`."""

    name: str
    line: int
    at_load: bool
    """Whether it happens when the module is loaded: not in a function, nor for type checkers."""

    @property
    def package(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A source file."""

    name: str
    path: Path
    is_package: bool

    def tree(self) -> ast.Module:
        """Parse the file."""
        return ast.parse(self.path.read_text("utf-8"), str(self.path))

    def imports(self) -> list[Import]:
        """Return everything that the file imports, wherever in it."""
        return list(_imports(self.tree(), self.name if self.is_package else _parent(self.name)))


def modules_in(package: str, source_root: Path) -> dict[str, Module]:
    """Return the modules of a package by name."""
    found: dict[str, Module] = {}
    for path in sorted((source_root / package).rglob("*.py")):
        parts = path.relative_to(source_root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Module(name=name, path=path, is_package=is_package)
    return found


@cache
def modules_of(package: str) -> dict[str, Module]:
    """Return the modules of one of the project's packages by name."""
    return modules_in(package, SOURCE_ROOTS[package])


def loaded_with(start: str, modules: dict[str, Module]) -> dict[str, str]:
    """Follow the imports that happen when a module is loaded.

    Args:
        start: Name of the module.
        modules: The modules to follow into; others end the walk.

    Returns:
        Every name that is imported on the way -> who imports it, as `module:line`.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = modules.get(waiting.pop())
        if module is None or module.name in seen:
            continue
        seen.add(module.name)
        waiting.append(_parent(module.name))  # loading a module loads the packages around it
        for item in module.imports():
            if item.at_load:
                found.setdefault(item.name, f"{module.name}:{item.line}")
                waiting += [item.name, _parent(item.name)]
    return found


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _imports(node: ast.AST, package: str, *, at_load: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for name in _names(child, package):
            yield Import(name=name, line=getattr(child, "lineno", 0), at_load=at_load)
        if isinstance(child, ast.If) and _is_for_type_checkers(child.test):
            for inner in child.body:
                yield from _imports(ast.Module([inner], []), package, at_load=False)
            yield from _imports(ast.Module(child.orelse, []), package, at_load=at_load)
            continue
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(child, package, at_load=at_load and not later)


def _names(node: ast.AST, package: str) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            home = [module] if module else []
            if level:
                home = [package.rsplit(".", level - 1)[0], *home]
            return [".".join([*home, alias.name]) for alias in names]
        case ast.Call(
            func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []


def _is_for_type_checkers(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
