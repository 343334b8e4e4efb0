"""Apple's Core AI packages as this toolchain uses them: imported late, and quietly.

They are betas, and a release may break what the last one did. What is called of them is called in
the files `coreai*.py`; `BETA` says with which releases that was tried.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any

from mvsdk._installed import pip_install, toolchain_install
from mvsdk.backends.native_output import captured_native_output
from mvsdk_export.errors import (
    ExportError,
    TargetUnavailableError,
    UnsupportedOpError,
    first_line,
)
from mvsdk_export.quiet import quiet as plainly_quiet

BETA: Mapping[str, str] = {
    "coreai-core": "1.0.0b3",
    "coreai-torch": "0.4.3",
    "coreai-opt": "0.4.0",
}
"""Distribution -> the release that was tried."""


def import_coreai(module: str) -> Any:
    """Import a module of `coreai`, `coreai_torch` or `coreai_opt`.

    Raises:
        TargetUnavailableError: If it is missing, or not to be found in the installed release.
    """
    try:
        with quiet():
            return importlib.import_module(module)
    except (ImportError, OSError) as exc:  # OSError: a library that is missing on this system
        raise TargetUnavailableError(
            f"Core AI assets need {module} ({first_line(exc)}; {describe_releases()}); "
            f"run: {toolchain_install('coreai')}"
        ) from exc


def describe_releases() -> str:
    """Return which releases were tried and which are here, in a few words."""
    tried = ", ".join(f"{name} {version}" for name, version in BETA.items())
    here = installed_releases()
    others = [f"{n} {here.get(n, 'missing')}" for n, v in BETA.items() if here.get(n) != v]
    return f"tried with {tried}" + (f", here is {', '.join(others)}" if others else "")


def installed_releases() -> dict[str, str]:
    """Return the installed release of each of Apple's packages."""
    found: dict[str, str] = {}
    for name in BETA:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars, warnings and what native code prints off the terminal."""
    with captured_native_output(), plainly_quiet():
        yield


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Say of what fails inside the block which releases were tried, and be quiet.

    Raises:
        ExportError: If a file cannot be written.
        TargetUnavailableError: If a name or an argument of Apple's packages is no more.
        UnsupportedOpError: If they refuse what they are given.
    """
    try:
        with quiet():
            yield
    except ExportError:
        raise
    except OSError as exc:
        raise ExportError(
            f"{what} failed: {first_line(exc)}; make room, or check the disk"
        ) from exc
    except (AttributeError, TypeError) as exc:
        wanted = [f"{name}=={version}" for name, version in BETA.items()]
        raise TargetUnavailableError(
            f"{what} failed, perhaps as Core AI's beta packages changed: {first_line(exc)}; "
            f"{describe_releases()}; run: {pip_install(*wanted)}"
        ) from exc
    except Exception as exc:  # of classes that differ from beta to beta
        raise UnsupportedOpError(
            f"{what} failed: {first_line(exc)}; {describe_releases()}; try another size or "
            "precision, or --format coreml"
        ) from exc
