"""Which source files decide what a job makes: those that its module imports, and theirs in turn.

They are read, not run: `import` statements wherever they stand, in functions too. A change of any
of them makes the job anew, and a change of no other. Packages around a module count as files; what
they import is followed where they are imported themselves. What is imported by a name that is made
at run time is named by the job (`Job.modules`). Of other distributions the version counts
(job.py), and, where a model of another package names one, all of its source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import mvsdk

_ROOTS = {
    "mvsdk": Path(mvsdk.__file__).parent.parent,
    "mvsdk_export": Path(__file__).parents[2],
}


def source_hash(modules: Sequence[str]) -> str:
    """Return the hash of the source that some modules run.

    Args:
        modules: Names of modules, and of packages of other distributions.
    """
    own = [name for name in modules if name.partition(".")[0] in _ROOTS]
    others = sorted({name.partition(".")[0] for name in modules} - _ROOTS.keys())
    lines = [f"{_place_of(path)} {_hash_file(path)}" for path in source_files(own)]
    lines += [f"{name} {_hash_package(name)}" for name in others]
    return sha256("\n".join(lines).encode()).hexdigest()


def source_files(modules: Sequence[str]) -> list[Path]:
    """Return the files of modules of the project, and of all that they import, sorted.

    Args:
        modules: Names of modules of the runtime or of the toolchain.
    """
    seen: set[str] = set()
    files: set[Path] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _file_of(name)
        if path is None:  # a name in a module
            continue
        files.add(path)
        files.update(_packages_around(name))
        todo += imported_names(path, name)
    return sorted(files)


@cache
def _file_of(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] not in _ROOTS:
        return None
    place = _ROOTS[parts[0]].joinpath(*parts)
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _packages_around(name: str) -> Iterator[Path]:
    parent = name.rpartition(".")[0]
    while parent:
        if (path := _file_of(parent)) is not None:
            yield path
        parent = parent.rpartition(".")[0]


@cache
def imported_names(path: Path, name: str) -> tuple[str, ...]:
    """Return what a file of the project imports, modules and names in them, absolute.

    Args:
        path: The file.
        name: Of its module.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = [node.module] if node.module else []
            if node.level:
                home = [package.rsplit(".", node.level - 1)[0], *home]
            place = ".".join(home)
            found += [place, *(f"{place}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(x for x in found if x.partition(".")[0] in _ROOTS))


@cache
def _place_of(path: Path) -> str:
    roots = [root for root in _ROOTS.values() if path.is_relative_to(root)]
    return path.relative_to(max(roots, key=lambda root: len(root.parts))).as_posix()


@cache
def _hash_file(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@cache
def _hash_package(package: str) -> str:
    """Return the hash of the source of a package or module; it is not imported."""
    spec = find_spec(package)
    digest = sha256()
    if spec is not None and spec.submodule_search_locations:
        for root in map(Path, spec.submodule_search_locations):
            for path in sorted(root.rglob("*.py")):
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(path.read_bytes())
    elif spec is not None and spec.origin is not None:
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()
