"""coremltools as this toolchain uses it: imported late, and quietly."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import warnings
from typing import Any

from mvsdk_export.errors import TargetUnavailableError

INSTALL = "pip install 'mvsdk[apple]'"
DEPLOYMENT_TARGETS = ("iOS17", "iOS18", "iOS26")
"""Systems that Core ML packages are made for; the second is the default."""


def import_coremltools() -> Any:
    """Import coremltools.

    Raises:
        TargetUnavailableError: If it is missing.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions of torch that it was not tested with
        try:
            return importlib.import_module("coremltools")
        except ImportError as exc:
            raise TargetUnavailableError(
                f"Core ML packages need coremltools ({exc}); run: {INSTALL}"
            ) from exc


def tool_metadata() -> dict[str, str]:
    """Return the versions of what makes a package, as its user metadata says them."""
    return {
        "com.github.apple.coremltools.version": importlib.metadata.version("coremltools"),
        "com.github.apple.coremltools.source": f"torch=={importlib.metadata.version('torch')}",
        "mvsdk.version": importlib.metadata.version("mvsdk"),
    }
