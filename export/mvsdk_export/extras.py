"""Extras of the toolchain: what brings what, and what to type where it is missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from mvsdk._installed import toolchain_install
from mvsdk_export.errors import ExportError

Extra = Literal["export", "snapdragon", "apple", "coreai", "executorch", "train"]

_NEEDS: dict[Extra, str] = {
    "export": "the toolchain",
    "snapdragon": "Qualcomm's compiler",
    "apple": "Apple's converter",
    "coreai": "Apple's Core AI packages",
    "executorch": "ExecuTorch",
    "train": "the training tools",
}


def require_toolchain(*modules: str, command: str, extra: Extra = "export") -> None:
    """Check that modules are installed, without importing them.

    Args:
        *modules: Top-level names, such as "torch".
        command: The verb that needs them.
        extra: The extra of the toolchain that brings them; "export" for the toolchain itself.

    Raises:
        ExportError: With the pip command, if one is missing.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        extras = () if extra == "export" else (extra,)  # the toolchain itself
        cause = ModuleNotFoundError(f"not installed: {', '.join(missing)}")
        raise ExportError(
            f"mvsdk {command} needs {_NEEDS[extra]}: {toolchain_install(*extras)}"
        ) from cause
