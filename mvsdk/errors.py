"""Errors of mvsdk: one tree, one line per message.

    Exception
    └── MvsdkError                  everything this package raises on purpose
        ├── BundleError             a bundle is missing, damaged, unsafe or too new
        │   └── BundleNotFoundError     it is not there (also a FileNotFoundError)
        ├── BackendError            a runtime is missing, or refuses a graph
        ├── ScheduleError           noise levels or timesteps that no sampler can follow
        ├── InputError              an argument of the caller (also a ValueError)
        │   └── PictureNotFoundError    a picture file is not there (also a FileNotFoundError)
        └── OutputError             a result cannot be written (exists, unwritable, full)

A message says what failed, the value met, what is allowed and the next step: lower-case, one line,
no trailing stop. The cause is chained (`raise ... from exc`), so `--debug` shows it. What is also a
FileNotFoundError has the `errno` ENOENT and the missing path as its `filename`.
"""

from __future__ import annotations

import errno
import os


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


class _NotFoundError(FileNotFoundError):
    """A `FileNotFoundError` whose text is our message, also after a journey between processes."""

    def __init__(self, message: str, filename: str | None = None) -> None:
        """Take the message.

        Args:
            message: One line, as of every error here.
            filename: The path that is not there.
        """
        super().__init__(message)
        self.errno = errno.ENOENT
        self.strerror = os.strerror(errno.ENOENT)
        self.filename = filename

    def __str__(self) -> str:
        """Return the message: of a file name, OSError would make a text of its own."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[_NotFoundError], tuple[str, str | None]]:
        """Say how to make it again."""
        return type(self), (str(self), self.filename)


class BundleNotFoundError(_NotFoundError, BundleError):
    """There is no bundle: neither its folder nor a manifest in it."""


class PictureNotFoundError(_NotFoundError, InputError):
    """There is no such picture file."""
