"""First of all, `mvsdk` is imported: it turns off what dependencies report about their users."""

from __future__ import annotations

import contextlib
import importlib
import warnings

import mvsdk  # noqa: F401

# Before anything imports distutils: setuptools takes its place, and its warnings, which are errors
# inside a test, would let the one of the standard library in, with which it then refuses to work.
with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.simplefilter("ignore")
    importlib.import_module("setuptools")
