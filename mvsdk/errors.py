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
no trailing stop. What breaks a rule of the docs that has an id ends with it in brackets, and has it
as its `rule`. The cause is chained (`raise ... from exc`), so `--debug` shows it. What is also a
FileNotFoundError has the `errno` ENOENT and the missing path as its `filename`.
"""

from __future__ import annotations

import errno
import os
from typing import Self, TypeVar

E = TypeVar("E", bound="MvsdkError")


class MvsdkError(Exception):
    """Base of every error that mvsdk raises on purpose."""

    rule: str | None = None
    """Id of the rule that was broken, such as "T7"; None where rules have no ids."""
    where: str | None = None
    """Place in the manifest as a JSON path, empty for the document; None for other errors."""

    def __init__(self, *args: object, rule: str | None = None, where: str | None = None) -> None:
        """Take the message.

        Args:
            *args: The message, one line.
            rule: Id of the rule that was broken; it is put after the message.
            where: Place in the manifest.
        """
        if rule is not None:
            args = (f"{args[0]} [{rule}]", *args[1:])
        super().__init__(*args)
        self.rule = rule
        self.where = where

    def named(self, name: str) -> Self:
        """Return the same error with a name before its message."""
        return _revive(type(self), (f"{name}: {self}",), self.rule, self.where)

    def __reduce__(self) -> tuple[object, ...]:
        """Say how to make it again, in another process."""
        return _revive, (type(self), self.args, self.rule, self.where)


def _revive(kind: type[E], args: tuple[object, ...], rule: str | None, where: str | None) -> E:
    error = kind(*args)
    error.rule, error.where = rule, where
    return error


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

    def __init__(
        self, message: str, filename: str | None = None, *, rule: str | None = None
    ) -> None:
        """Take the message.

        Args:
            message: One line, as of every error here.
            filename: The path that is not there.
            rule: Id of the rule that was broken; it is put after the message.
        """
        super().__init__(message if rule is None else f"{message} [{rule}]")
        self.rule: str | None = rule
        self.errno = errno.ENOENT
        self.strerror = os.strerror(errno.ENOENT)
        self.filename = filename

    def __str__(self) -> str:
        """Return the message: of a file name, OSError would make a text of its own."""
        return str(self.args[0])

    def named(self, name: str) -> Self:
        """Return the same error with a name before its message."""
        error = type(self)(f"{name}: {self}", self.filename)
        error.rule = self.rule
        return error

    def __reduce__(self) -> tuple[object, ...]:
        """Say how to make it again."""
        return type(self), (str(self), self.filename), {"rule": self.rule}


class BundleNotFoundError(_NotFoundError, BundleError):
    """There is no bundle: neither its folder nor a manifest in it."""


class PictureNotFoundError(_NotFoundError, InputError):
    """There is no such file of a picture, or of a clip that another begins with."""
