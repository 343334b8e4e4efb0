"""Errors of mvsdk: one tree, one line per message.

    Exception
    └── MvsdkError              everything this package raises on purpose
        ├── BundleError         a bundle is missing, damaged, unsafe or too new
        ├── BackendError        a runtime is missing, or refuses a graph
        ├── ScheduleError       noise levels or timesteps that no sampler can follow
        ├── InputError          an argument of the caller (also a ValueError)
        └── OutputError         a result cannot be written (exists, unwritable, full)

A message says what failed, the value met, what is allowed and the next step: lower-case, one line,
no trailing stop. The cause is chained (`raise ... from exc`), so `--debug` shows it.
"""

from __future__ import annotations


class MvsdkError(Exception):
    """Base of every error that mvsdk raises on purpose."""


class BundleError(MvsdkError):
    """A bundle is missing, damaged, unsafe, inconsistent or of a newer format."""


class BackendError(MvsdkError):
    """A backend is not installed, or cannot load or run a graph."""


class ScheduleError(MvsdkError):
    """Noise levels or timesteps do not make a schedule."""


class InputError(MvsdkError, ValueError):
    """An argument of the caller is not allowed."""


class OutputError(MvsdkError):
    """A result cannot be written: it exists, the folder is unwritable, or the disk is full."""
