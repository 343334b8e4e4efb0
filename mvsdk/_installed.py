"""What is installed beside this package, asked without importing it, and how to install more.

Two distributions make up the project: the runtime (`mvsdk`), and the toolchain (`mvsdk_export`)
with the extras. Neither carries the import name: another project has it on the package index.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

RUNTIME = "mobile-video-sdk"
"""Distribution of this package."""
TOOLCHAIN = "mobile-video-sdk-export"
"""Distribution of the toolchain, which has the extras."""
TOOLCHAIN_FOLDER = "export"
"""Where a checkout has it."""


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip_install(*requirements: str) -> str:
    """Return the command that installs packages where this process runs, to be pasted into a shell.

    Args:
        *requirements: Such as `onnxruntime-qnn`, or options of pip.
    """
    return " ".join([_installer(), *map(shlex.quote, requirements)])


def toolchain_install(*extras: str) -> str:
    """Return the command that installs the toolchain, the way this copy of mvsdk was installed.

    From a checkout it is installed from there, from a wheel by the wheel beside it, and from a
    package index by name.

    Args:
        *extras: Of the toolchain, such as "snapdragon"; none for the toolchain alone.
    """
    bracket = f"[{','.join(extras)}]" if extras else ""
    for distribution in (TOOLCHAIN, RUNTIME):
        if (source := _source(distribution)) is not None:
            return pip_install(*_from_source(distribution, source, bracket))
    if installed_version(RUNTIME) is None and (root := _checkout()) is not None:
        return pip_install("-e", str(root), "-e", f"{root / TOOLCHAIN_FOLDER}{bracket}")
    # By way of the runtime, whose extras ask for the toolchain of the same version.
    return pip_install(f"{RUNTIME}[{','.join(extras) or 'export'}]")


def upgrade_advice() -> str:
    """Return how to get a newer runtime, by the way in which this copy was installed."""
    source = _source(RUNTIME)
    if source is None and installed_version(RUNTIME) is not None:
        return f"run: {pip_install('--upgrade', RUNTIME)}"
    folder = _checkout() if source is None else _local_path(source)
    if folder is not None and (folder / TOOLCHAIN_FOLDER).is_dir():
        return f"run: git -C {shlex.quote(str(folder))} pull"
    return "install a newer release"


def _from_source(distribution: str, source: dict[str, Any], bracket: str) -> list[str]:
    """Return what pip is asked for, by PEP 610's record of where a distribution came from."""
    if "vcs_info" in source:
        commit = cast("dict[str, str]", source["vcs_info"]).get("commit_id", "")
        place = f"git+{source['url']}@{commit}#subdirectory={TOOLCHAIN_FOLDER}"
        return [f"{TOOLCHAIN}{bracket} @ {place}"]
    path = _local_path(source)
    if path is None:  # an archive from elsewhere: the toolchain's lies beside it
        url = str(source["url"]).replace(_stem(RUNTIME) + "-", _stem(TOOLCHAIN) + "-", 1)
        return [f"{TOOLCHAIN}{bracket} @ {url}"]
    if path.suffix == ".whl":
        name = re.sub(rf"^{_stem(distribution)}-", f"{_stem(TOOLCHAIN)}-", path.name)
        return [f"{path.with_name(name)}{bracket}"]
    folder = path if distribution == TOOLCHAIN else path / TOOLCHAIN_FOLDER
    editable = cast("dict[str, bool]", source.get("dir_info", {})).get("editable", False)
    return [*(["-e"] if editable else []), f"{folder}{bracket}"]


def _source(distribution: str) -> dict[str, Any] | None:
    """Return where a distribution was installed from (PEP 610); None if from a package index."""
    try:
        text = importlib.metadata.distribution(distribution).read_text("direct_url.json")
        found: object = json.loads(text or "null")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    source = cast("dict[str, Any]", found)
    return source if isinstance(source.get("url"), str) else None


def _local_path(source: dict[str, Any]) -> Path | None:
    parts = urlsplit(cast("str", source["url"]))
    return Path(url2pathname(unquote(parts.path))) if parts.scheme == "file" else None


def _checkout() -> Path | None:
    """Return the checkout that this file lies in; None if it lies in none."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / TOOLCHAIN_FOLDER / "pyproject.toml").is_file() else None


def _stem(distribution: str) -> str:
    """Return how the names of a distribution's wheels begin."""
    return distribution.replace("-", "_")


def _installer() -> str:
    """Return pip, or uv where the environment has no pip, as a person has to call it from here."""
    python = Path(sys.executable)
    if installed_version("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {shlex.quote(str(python))}"
    found = shutil.which("pip")
    if found is not None and Path(found).parent == python.parent:
        return "pip install"
    return f"{shlex.quote(str(python))} -m pip install"


def import_path() -> list[str]:
    """Return where modules are looked for; what is no text there is passed over, as Python does."""
    return [x for x in cast("list[object]", sys.path) if isinstance(x, str) and x]
