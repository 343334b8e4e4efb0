"""Errors of the toolchain.

MvsdkError
    ExportError                 an export, a verification or a plan cannot go on
        CheckpointError         a model folder is not what its recipe says
        CompressionError        a network cannot be compressed as asked
        UnsupportedOpError      a target has no form of an operator
        ParityError             an artefact differs from the reference by more than is allowed
        TargetUnavailableError  a target's compiler or runtime is missing on this machine
"""

from __future__ import annotations

from mvsdk.errors import MvsdkError


def first_line(exc: BaseException) -> str:
    """Return the first line of an exception's text, for messages of one line."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:500]


def one_line(exc: BaseException, most: int = 200) -> str:
    """Return type and text of an exception of somebody else's, for messages of one line."""
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:most]


class ExportError(MvsdkError):
    """An export, a verification or a plan cannot go on."""


class CheckpointError(ExportError):
    """A model folder is not what its recipe says."""


class CompressionError(ExportError):
    """A network cannot be compressed as asked."""


class UnsupportedOpError(ExportError):
    """A target has no form of an operator."""


class ParityError(ExportError):
    """An artefact differs from the float32 reference by more than is allowed."""


class TargetUnavailableError(ExportError):
    """A target's compiler or runtime is missing on this machine."""
