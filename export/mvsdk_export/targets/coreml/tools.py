"""coremltools as this toolchain uses it: imported late, and quietly."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mvsdk
from mvsdk._installed import pip_install, toolchain_install
from mvsdk._text import quoted
from mvsdk_export.errors import ExportError, TargetUnavailableError

DEPLOYMENT_TARGETS = ("iOS17", "iOS18", "iOS26")
"""Systems that Core ML packages are made for."""
DEFAULT_DEPLOYMENT_TARGET = "iOS18"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = frozenset(
    [
        *("any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false"),
        *("string", "bf16", "fp16", "fp32", "fp64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "state"),
    ]
)
"""Words of ML programs: coremltools renames a tensor that is called so, without a word."""


def check_tensor_names(component: str, names: Iterable[str]) -> None:
    """Check that tensors keep their names in a Core ML package.

    Args:
        component: Whose inputs and outputs they are.
        names: The names.

    Raises:
        ExportError: If one is a word of ML programs, or not made of letters, digits and `_`.
    """
    for name in names:
        if name in _RESERVED or not _NAME.fullmatch(name):
            raise ExportError(
                f"Core ML has no tensor {quoted(name)}, as {component} has: the name is a word "
                "of ML programs, or has more than letters, digits and '_'; call it otherwise in "
                "the recipe, or choose another target"
            )


def load_protocol() -> tuple[Any, Any]:
    """Return coremltools' `Model_pb2` and `MIL_pb2`, in a tenth of a second.

    Importing coremltools itself takes six: converters of every framework come with it. Its modules
    of formats need nothing of that, so they are loaded as a package of another name.

    Raises:
        TargetUnavailableError: If coremltools is missing.
    """
    name = "_coremltools_proto"
    if name not in sys.modules:
        folder = _folder() / "proto"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return (
        importlib.import_module(f"{name}.Model_pb2"),
        importlib.import_module(f"{name}.MIL_pb2"),
    )


def load_storage() -> Any:
    """Return coremltools' reader and writer of files of weights, likewise.

    Raises:
        TargetUnavailableError: If coremltools is missing, or has no such library.
    """
    # Under the name that coremltools itself imports it by: its types can be registered once only.
    name = "coremltools.libmilstoragepython"
    if name not in sys.modules:
        library = next(_folder().glob("libmilstoragepython*.so"), None)
        if library is None:
            raise TargetUnavailableError(
                "coremltools is here without its library libmilstoragepython, as where it has no "
                "wheel for this Python or system; run: "
                + pip_install("--force-reinstall", "coremltools")
            )
        spec = importlib.util.spec_from_file_location(name, library)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _folder() -> Path:
    spec = importlib.util.find_spec("coremltools")
    if spec is None or spec.origin is None:
        raise TargetUnavailableError(
            "Core ML packages need coremltools, which is not installed; run: "
            + toolchain_install("apple")
        )
    return Path(spec.origin).parent


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
                f"Core ML packages need coremltools ({exc}); run: {toolchain_install('apple')}"
            ) from exc


def tool_metadata() -> dict[str, str]:
    """Return the versions of what makes a package, as its user metadata says them."""
    return {
        "com.github.apple.coremltools.version": importlib.metadata.version("coremltools"),
        "com.github.apple.coremltools.source": f"torch=={importlib.metadata.version('torch')}",
        "mvsdk.version": mvsdk.__version__,
    }
