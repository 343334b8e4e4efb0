"""First of all, `mvsdk` is imported: it turns off what dependencies report about their users."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings

# Before anything loads PyTorch. Tests run side by side, one for each core, and threads that are
# more than the cores wait for each other: of two trainings at once each took 276 s with two
# threads, and 13 s with one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import mvsdk  # noqa: F401

# Before anything imports distutils: setuptools takes its place, and its warnings, which are errors
# inside a test, would let the one of the standard library in, with which it then refuses to work.
with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.simplefilter("ignore")
    importlib.import_module("setuptools")
