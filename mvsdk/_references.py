"""Hidden files beside a model, and whether a file of the model can mean one.

Systems leave hidden files everywhere (`_leftovers.is_hidden`), also beside models, whose graphs
name further files by their place. A hidden file is no file of a bundle and has no hash, so a graph
must not read it. All formats keep the names that they refer to as plain text, so a hidden file
whose name is in none of the files there is one that nothing there can open
(docs/bundle_format.md, section 1).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvsdk._leftovers import is_hidden

_NAME = re.compile(r"[A-Za-z0-9._+-]{6,255}")
"""Shorter names turn up in weights by chance; other letters have spellings of their own."""
_CHUNK_BYTES = 1 << 22

# What file systems that ignore case take for one letter (long s, the sign of kelvin), and what that
# of older Macs ignores between letters: U+200B-200F, U+202A-202E, U+2060-206F, U+FEFF.
_FOLDED = {"s": b"\xc5\xbf", "k": b"\xe2\x84\xaa"}
_IGNORED = rb"(?:\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf)*"
_ESCAPE = re.compile(rb"\\u([0-9A-Fa-f]{4})")


def files_below(folder: Path) -> list[Path]:
    """Return what lies in a folder and below it; a linked folder is one, and one to be ignored."""
    found: list[Path] = []
    todo = [folder]
    while todo:
        for path in todo.pop().iterdir():
            if path.is_dir() and not path.is_symlink() and not can_be_ignored(path):
                todo.append(path)
            else:
                found.append(path)
    return sorted(found)


def can_be_ignored(path: Path) -> bool:
    """Return whether a system left this, if no file of the bundle is called so.

    Hidden files and folders, but no links and no pipes, and with names that `find_reference` can
    look for.
    """
    name = path.name
    return is_hidden(name) and _NAME.fullmatch(name) is not None and _is_plain(path)


def _is_plain(path: Path) -> bool:
    """Return whether this is a regular file or a folder, or went away meanwhile, as some do."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def find_reference(names: Iterable[str], files: Iterable[Path]) -> tuple[str, Path] | None:
    """Return the first file that holds the name of a file, in any spelling that opens it.

    Args:
        names: Of files or folders that `can_be_ignored`.
        files: What to read.

    Returns:
        The name and what holds it; None if nothing does.

    Raises:
        OSError: If one cannot be read.
    """
    # One by one, each with a beginning of its own, which `re` looks for fast.
    patterns = [(name, re.compile(part)) for name in names for part in _patterns(name.lower())]
    found = ((_held(path, patterns), path) for path in files if patterns)
    return next(((name, path) for name, path in found if name is not None), None)


def _patterns(name: str) -> list[bytes]:
    return [_spellings(name), *_short_names(name)]


def _spellings(name: str) -> bytes:
    letters: list[bytes] = []
    for letter in name:
        plain = re.escape(letter.encode())
        other = _FOLDED.get(letter)
        letters.append(plain if other is None else b"(?:" + plain + b"|" + other + b")")
    return _IGNORED.join(letters)


def _short_names(name: str) -> list[bytes]:
    """Return what Windows may call a file too, in the form of its first systems: `DS_STO~1`."""
    stem = name.lstrip(".").rpartition(".")[0] or name.lstrip(".")
    stem = stem.replace(".", "").replace("+", "_")
    first, hashed = stem[:6].encode(), stem[:2].encode()
    return [re.escape(first) + b"~[0-9]", re.escape(hashed) + b"[0-9a-f]{4}~[0-9]"]


def _held(path: Path, patterns: Sequence[tuple[str, re.Pattern[bytes]]]) -> str | None:
    # Of the longest spelling: a letter has up to 3 bytes, and some ignored ones may be between.
    overlap = max(16 * len(name) for name, _ in patterns)
    is_json = path.suffix.lower() == ".json"
    with path.open("rb") as file:
        last = b""
        while chunk := file.read(_CHUNK_BYTES):
            window = last + chunk
            if is_json:  # its letters may be written as numbers
                window = _ESCAPE.sub(_unescaped, window)
            lower = window.lower()
            for name, pattern in patterns:
                if pattern.search(lower):
                    return name
            last = window[-overlap:]
    return None


def _unescaped(code: re.Match[bytes]) -> bytes:
    return chr(int(code[1], 16)).encode("utf-8", "replace")
