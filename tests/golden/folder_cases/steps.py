"""What is done to a folder before a bundle is opened, or after."""

from __future__ import annotations

from typing import Any

from folder_cases.bundles import B, text_of

Step = dict[str, Any]


def make(path: str, text: str = "x") -> Step:
    """Return a step that makes a file of a text."""
    return {"step": "make", "path": path, "text": text}


def make_bytes(path: str, content: bytes) -> Step:
    """Return a step that makes a file of bytes."""
    return {"step": "make", "path": path, "hex": content.hex()}


def listed(path: str, text: str) -> Step:
    """Return a step that makes a file of the bundle, and lists it."""
    return {"step": "list", "path": path, "hex": text.encode().hex()}


def mkdir(path: str) -> Step:
    """Return a step that makes a folder."""
    return {"step": "mkdir", "path": path}


def link(path: str, to: str) -> Step:
    """Return a step that makes a symbolic link."""
    return {"step": "link", "path": path, "to": to}


def hardlink(path: str, to: str) -> Step:
    """Return a step that gives a file a second name."""
    return {"step": "hardlink", "path": path, "to": to}


def fifo(path: str) -> Step:
    """Return a step that makes a pipe."""
    return {"step": "fifo", "path": path}


def resize(path: str, size: int) -> Step:
    """Return a step that makes a file longer or shorter."""
    return {"step": "resize", "path": path, "bytes": size}


def later(path: str) -> Step:
    """Return a step that changes a file's time."""
    return {"step": "later", "path": path}


def remove(path: str) -> Step:
    """Return a step that removes a file or folder."""
    return {"step": "remove", "path": path}


def rename(path: str, to: str) -> Step:
    """Return a step that moves a file or folder."""
    return {"step": "rename", "path": path, "to": to}


def flipped(path: str) -> Step:
    """Return a step that changes a letter of a file, and not its size."""
    return make(f"{B}/{path}", text_of(path)[:-1] + "!")
