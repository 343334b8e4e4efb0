"""The command `mvsdk`: one verb per module here, and those that the toolchain adds.

Exit status: 0 done, 1 the answer is no (or a fault of mvsdk), 2 an error of the caller, 130 after
Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, which clean up as Ctrl-C does. Errors are one line;
`--debug`, anywhere on the line, adds traceback and log.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any, Never

import mvsdk
from mvsdk._installed import toolchain_install
from mvsdk._text import one_line, quoted
from mvsdk.cli import completion, devices, doctor, inspect, slim
from mvsdk.cli.clip import clip_command
from mvsdk.cli.command import Command
from mvsdk.cli.output import abandon_stdout, say, show
from mvsdk.cli.signals import Terminated, ending_signals
from mvsdk.errors import BackendError, InputError, MvsdkError
from mvsdk.tasks import TASKS

RUNTIME_COMMANDS: tuple[Command, ...] = (
    *map(clip_command, TASKS.values()),
    inspect.COMMAND,
    slim.COMMAND,
    devices.COMMAND,
    doctor.COMMAND,
    completion.COMMAND,
)

# Shown where the toolchain is not installed, which would otherwise name its own.
_TOOLCHAIN_HELP = {
    "export": "compile a model into a bundle for phone NPUs",
    "verify": "measure a bundle against float32 PyTorch",
    "plan": "sizes, costs and limits of an export, without weights",
    "compress": "make the denoiser of an image-to-video model smaller",
    "train": "train a small model of this SDK",
}

_HELP = """\
usage: mvsdk COMMAND [options]        mvsdk COMMAND --help shows its options

Few-step video diffusion on phone NPUs, and on this computer.

run a bundle:
{runtime}

make a bundle{missing}:
{toolchain}

options: -h, --help, --version, --debug (anywhere; shows log and traceback)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit status.
    """
    arguments, debug = _without_debug(sys.argv[1:] if argv is None else argv)
    _prepare_streams(debug=debug)
    with ending_signals() as ending:
        status = _run_guarded(arguments, debug=debug)
    return status if ending.number is None else 128 + ending.number


def _run_guarded(arguments: Sequence[str], *, debug: bool) -> int:
    """Run a command; whatever goes wrong becomes one line and an exit status."""
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()
        status = 141  # what a shell reports for a writer whose reader went away (128 + SIGPIPE)
    except Terminated:
        with contextlib.suppress(OSError):  # the terminal may be what went away
            say("terminated; nothing half-written is left")
        status = 1  # main says which signal it was
    except KeyboardInterrupt:
        say("\ninterrupted; nothing half-written is left")
        status = 130
    except MvsdkError as exc:
        status = _report(exc, str(exc), debug=debug, status=2)
    except Exception as exc:  # a fault of ours must not look like the user's
        text = f"{type(exc).__name__}: {exc}; this is a fault of mvsdk, --debug shows where"
        status = _report(exc, text, debug=debug, status=1)
    return status


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        show(_help_text())
        return 0
    if arguments[0] == "--version":
        show(f"mvsdk {mvsdk.__version__}")
        return 0
    verb, *rest = arguments
    command = _find_command(verb)
    description = command.help[0].upper() + command.help[1:] + "."
    parser = _Parser(prog=f"mvsdk {verb}", description=description)
    command.add_arguments(parser)
    try:
        options = parser.parse_args(rest)
    except SystemExit as exc:  # --help
        return exc.code if isinstance(exc.code, int) else 0
    return command.run(options)


class _HelpFormatter(argparse.HelpFormatter):
    """Help that fits a screen of 24 lines: the usage names only what is required."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        """Add the line `usage: mvsdk VERB REQUIRED [options]`."""
        del usage
        required = [
            " ".join([*action.option_strings[-1:], str(action.metavar or action.dest.upper())])
            for action in actions
            if action.required
        ]
        line = " ".join(["%(prog)s", *required, "[options]"])
        super().add_usage(line, actions, groups, prefix)


class _Parser(argparse.ArgumentParser):
    """argparse, with our errors in place of its own exit."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            add_help=False,
            formatter_class=_HelpFormatter,
        )
        self.add_argument(
            "-h",
            "--help",
            action="help",
            help="this help; --debug, anywhere, adds log and traceback",
        )

    def error(self, message: str) -> Never:
        if message.endswith("expected one argument"):
            message += "; a name that begins with a dash is given as ./-NAME"
        raise InputError(f"{message}; see {self.prog} --help")


def all_commands() -> list[Command]:
    """Return every verb that is there, those of the toolchain too where it is installed."""
    added = [command for command in _toolchain_commands().values() if command.run is not _cannot]
    return [*RUNTIME_COMMANDS, *added]


def _find_command(verb: str) -> Command:
    known = {command.name: command for command in RUNTIME_COMMANDS}
    if verb not in known:
        known |= _toolchain_commands()
    if verb not in known:
        close = get_close_matches(verb[:40], known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(
            f"unknown command {quoted(verb, 40)}; {hint}known: {', '.join(known)}; see mvsdk --help"
        )
    return known[verb]


def _toolchain_commands() -> dict[str, Command]:
    """Return the verbs that installed packages add; stand-ins where the toolchain is missing."""
    commands = {name: _missing(name, "it is not installed") for name in _TOOLCHAIN_HELP}
    for entry_point in entry_points(group="mvsdk.commands"):
        try:
            added: tuple[Command, ...] = entry_point.load()
        except Exception as exc:  # whatever a broken installation raises, the other verbs work
            logging.getLogger(__name__).debug("%s does not load", entry_point.value, exc_info=exc)
            reason = f"{entry_point.value} does not load ({exc})"
            commands |= {
                name: _missing(name, reason)
                for name, command in commands.items()
                if command.run is _cannot
            }
        else:
            commands |= {command.name: command for command in added}
    return commands


def _missing(name: str, reason: str) -> Command:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        del parser
        raise BackendError(
            f"mvsdk {name} belongs to the toolchain, and {reason}; run: {toolchain_install()}"
        )

    return Command(name=name, help=_TOOLCHAIN_HELP[name], add_arguments=add_arguments, run=_cannot)


def _cannot(options: argparse.Namespace) -> int:
    del options
    return 2


def _help_text() -> str:
    def listed(commands: Sequence[Command]) -> str:
        return "\n".join(f"  {command.name:<10}  {command.help}"[:80] for command in commands)

    toolchain = list(_toolchain_commands().values())
    is_missing = not entry_points(group="mvsdk.commands")
    text = _HELP.format(
        runtime=listed(RUNTIME_COMMANDS),
        toolchain=listed(toolchain),
        missing=", with the toolchain, which is not installed" if is_missing else "",
    )
    # On a line of its own, to be pasted, however long it is.
    return text + f"\nto install the toolchain:\n  {toolchain_install()}" if is_missing else text


def _without_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Take `--debug` out, wherever it stands before a `--`."""
    arguments = list(argv)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return kept + arguments[end:], len(kept) < end


def _prepare_streams(*, debug: bool) -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as some schedulers do
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    if debug:
        logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
        for name in ("mvsdk", "mvsdk_export"):  # two packages: neither logger is the other's child
            logging.getLogger(name).setLevel(logging.DEBUG)


def _report(exc: Exception, text: str, *, debug: bool, status: int) -> int:
    if debug:
        traceback.print_exception(exc)
    say(f"error: {one_line(text)}")
    return status
