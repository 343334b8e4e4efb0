"""`mvsdk completion`: a script by which a shell completes verbs, options and their values.

The script is static: it is made once from the parsers of all verbs that are installed, and nothing
of mvsdk runs while somebody types. shtab writes it, which is asked for when it is missing.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvsdk._installed import pip_install
from mvsdk.cli.command import Command, named_path
from mvsdk.cli.output import show
from mvsdk.errors import BackendError

_PLACES = {
    "bash": "~/.local/share/bash-completion/completions/mvsdk",
    "zsh": "a folder of $fpath, as _mvsdk",
    "fish": "~/.config/fish/completions/mvsdk.fish",
}
"""Shell -> where it looks for the script."""
_FOLDERS = frozenset({"DIR", "BUNDLE"})


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=list(_PLACES), help=", ".join(_PLACES))
    places = "; ".join(f"{shell}: {place}" for shell, place in _PLACES.items())
    parser.epilog = f"Write it to the place where the shell looks for it. {places}."


def _run(options: argparse.Namespace) -> int:
    from mvsdk.cli import all_commands

    try:
        shtab = importlib.import_module("shtab")
    except ImportError as exc:
        raise BackendError(
            f"mvsdk completion needs the package shtab ({exc}); run: {pip_install('shtab')}"
        ) from exc
    if options.shell not in shtab.SUPPORTED_SHELLS:
        raise BackendError(
            f"shtab {shtab.__version__} knows no {options.shell}; "
            f"run: {pip_install('--upgrade', 'shtab')}"
        )
    show(shtab.complete(completed_parser(all_commands(), shtab), shell=options.shell).rstrip())
    return 0


COMMAND = Command(
    name="completion",
    help="print a script that completes commands in a shell",
    add_arguments=_add_arguments,
    run=_run,
)


def completed_parser(commands: Sequence[Command], shtab: Any) -> argparse.ArgumentParser:
    """Return one parser of all verbs, whose options know what may follow them.

    Args:
        commands: The verbs.
        shtab: The module, which has names for files and folders.
    """
    root = argparse.ArgumentParser(prog="mvsdk", allow_abbrev=False)
    root.add_argument("--version", action="store_true", help="show the version")
    root.add_argument("--debug", action="store_true", help="show log and traceback")
    verbs = root.add_subparsers(dest="verb", metavar="COMMAND")
    values = _values()
    for command in commands:
        verb = verbs.add_parser(command.name, help=command.help, allow_abbrev=False)
        command.add_arguments(verb)
        verb.add_argument("--debug", action="store_true", help="show log and traceback")
        for action in verb._actions:  # pyright: ignore[reportPrivateUsage] - shtab reads them too
            _tell(action, command.name, values, shtab)
    return root


def _tell(
    action: argparse.Action, verb: str, values: Mapping[str, Sequence[str]], shtab: Any
) -> None:
    """Say what may follow an option, and show those that the help of a verb keeps for a page."""
    if action.help == argparse.SUPPRESS:
        action.help = f"see mvsdk {verb} --help"
    known = values.get(action.dest)
    if known and action.nargs != 0 and action.choices is None:
        action.choices = list(known)
    elif action.metavar in _FOLDERS:
        setattr(action, "complete", shtab.DIRECTORY)  # noqa: B010 - shtab's own attribute
    elif action.type in (Path, named_path):
        setattr(action, "complete", shtab.FILE)  # noqa: B010


def _values() -> dict[str, Sequence[str]]:
    """Return what is known to follow an option, by its name; others are allowed all the same."""
    from mvsdk.backends._registry import built_in_backends
    from mvsdk.devices import CHIPSETS
    from mvsdk.targets import DELEGATES, PRECISIONS, TARGETS

    return {
        "target": tuple(TARGETS),
        "chip": [chip.slug for chip in CHIPSETS],
        "precision": PRECISIONS,
        "format": [*TARGETS["iphone"].formats, *DELEGATES[:1]],
        "delegate": DELEGATES,
        "backend": [backend.name for backend in built_in_backends()],
    }
