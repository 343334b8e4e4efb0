"""Bundles on disk that are opened, or refused by a rule of docs/bundle_format.md, section 1.

Each case starts with an empty folder, in which the bundle of `base` is made as `b.mvbundle`: its
manifest, and `files`, path -> text. `before` are steps that are done then; `after` are those that
are done when the bundle is open. With `twice`, what is asked for is done before `after` too, and
succeeds. Paths of steps are relative to the empty folder.

    make      a file with `text` or `hex`, and the folders that it needs; one that is there goes
    list      the same in the bundle: and the manifest has its size and hash
    mkdir     a folder
    link      a symbolic link at `path` to `to`, as it is written
    hardlink  a second name `path` of the file `to`
    fifo      a pipe
    resize    a file gets `bytes` bytes: it is cut, or zeros are added
    later     a file's time of change is moved on by 10 s
    remove    a file, or a folder with all that is in it
    rename    `path` to `to`

`do` is what is asked for: `open` the bundle at `bundle` with the `packs` (name -> folder); then
`verify` it, `load` the `variant` of a `component` (check all that a graph could read, and say where
it lies), or `read` a `file`. `rule` is that of the refusal, null where all is well. `needs` are
what a system has to have: `links`, `pipes`, `case` (names that differ in case are two).
"""

from __future__ import annotations

from typing import Any

from folder_cases.bundles import BASES
from folder_cases.files import bundle_cases, file_cases, hash_cases
from folder_cases.hidden import hidden_cases, spelling_cases
from folder_cases.packs import pack_cases
from folder_cases.unlisted import unlisted_cases


def build_folders() -> dict[str, list[Any]]:
    """Return the bundles and the cases."""
    cases = [
        *bundle_cases(),
        *file_cases(),
        *hash_cases(),
        *unlisted_cases(),
        *hidden_cases(),
        *spelling_cases(),
        *pack_cases(),
    ]
    return {
        "bases": [{"name": name, **base} for name, base in BASES.items()],
        "cases": cases,
    }
