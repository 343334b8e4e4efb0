"""A reader who follows a page: a folder, what lies in it, and the commands that are run there."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pages import ROOT, Command, Page, Snippet

from mvsdk import cli
from mvsdk_export.commands.arguments import DEFAULT_MODEL

LIMIT_S = float(os.environ.get("MVSDK_DOCS_S", "30"))
"""What takes longer, as its page says, is not run."""
UNTOLD_S = 600.0
"""What is thought of a slow command whose page does not say how long it takes."""
PATIENCE = 8.0
"""How many times as long as its page says a command may take: tests share a machine."""

NEVER_RUN: Mapping[str, str] = {
    r"pip install ": "installs what is published; tests/contract/test_packaging.py builds wheels",
    r"make ": "makes an environment of its own and runs what other tests and pages do",
    r"hf download ": "downloads gigabytes of weights; small ones of the same form stand in",
    r"(mvsdk|torchrun .* -m mvsdk) train\b": "trains for an hour and more; tests/export in seconds",
    r"python benchmarks/quality\.py ": "measures what an hour of training made",
}
"""Start of commands that nothing here can run -> why. Each is printed somewhere."""
NEVER_RUN_SNIPPETS: Mapping[str, str] = {
    r"steps=10_000": "trains a network of a billion parameters; a type checker reads it",
}
"""Part of snippets that nothing here can run -> why."""

_SLOW = re.compile(r"mvsdk (export|verify|train)\b|python (-m )?benchmarks|torchrun\b")
_OUTPUTS = ("--out", "-o", "--work", "--local-dir", "--resources")


def why_never(step: Command | Snippet) -> str | None:
    """Return why a step cannot be run; None if it can."""
    if isinstance(step, Snippet):
        told = (why for part, why in NEVER_RUN_SNIPPETS.items() if re.search(part, step.text))
        return next(told, None)
    return next((why for start, why in NEVER_RUN.items() if re.match(start, step.text)), None)


def estimate_s(command: Command) -> float:
    """Return how long a command takes, as its page says, or else by what it does."""
    if command.seconds is not None:
        return command.seconds
    return UNTOLD_S if is_slow(command) else 0.0


def is_slow(command: Command) -> bool:
    """Return whether a command does what takes long."""
    says_only = any(word.startswith(("--help", "--dry-run")) for word in command.words)
    return _SLOW.match(command.text) is not None and not says_only


def made_by(command: Command) -> list[str]:
    """Return the files and folders that a command writes."""
    words = command.words
    if "--dry-run" in words:
        return []
    made = [value.rstrip("/") for word, value in pairwise(words) if word in _OUTPUTS]
    made += [word for before, word in pairwise(words) if before == ">"]
    if made:
        return made
    model = words[words.index("--model") + 1] if "--model" in words else DEFAULT_MODEL
    if words[:2] == ["mvsdk", "export"] and is_slow(command):
        return [f"{model}.mvbundle"]
    if "mvsdk train" in command.text:
        return [f"runs/{model}"]
    return []


def read_by(step: Command | Snippet) -> set[str]:
    """Return whatever a command or snippet names that may be a file."""
    if isinstance(step, Snippet):
        nodes = list(ast.walk(ast.parse(step.text)))
        constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
        modules = [f"{node.module}.py" for node in nodes if isinstance(node, ast.ImportFrom)]
        return {value for value in constants if isinstance(value, str)}.union(modules)
    words = step.words
    return {
        word.partition(":")[0].rstrip("/")
        for before, word in pairwise(words)
        if before not in _OUTPUTS and not word.startswith("-")
    }


def _takes_the_one_bundle(command: Command) -> bool:
    is_clip = re.match(r"mvsdk (generate|animate)\b", command.text) is not None
    return is_clip and "--bundle" not in command.words


@dataclass(kw_only=True)
class Reader:
    """Follows one page in a folder of its own."""

    page: Page
    folder: Path
    cache: Path
    missing: dict[str, str] = field(default_factory=dict)
    """What earlier steps would have made -> why they did not."""

    def why_not(self, step: Command | Snippet) -> str | None:
        """Return why a step is not run, because of itself or of those before it."""
        if (why := why_never(step) or self.lacks(step)) is not None:
            return why
        if isinstance(step, Command) and (seconds := estimate_s(step)) > LIMIT_S:
            return f"takes about {seconds:.0f} s: run make docs, or set MVSDK_DOCS_S"
        return None

    def lacks(self, step: Command | Snippet) -> str | None:
        """Return why what a step needs is not there; None if it is."""
        for name in sorted(read_by(step)):
            for gone, why in self.missing.items():
                if name == gone or name.startswith(f"{gone}/"):
                    return f"needs {gone}: {why}"
        bundles = [name for name in self.missing if name.endswith(".mvbundle")]
        is_bare = isinstance(step, Command) and _takes_the_one_bundle(step)
        if is_bare and bundles and not any(self.folder.glob("*.mvbundle")):
            return f"needs {bundles[0]}: {self.missing[bundles[0]]}"
        return None

    def leave_out(self, step: Command | Snippet, why: str) -> None:
        """Remember that what a step makes is not there."""
        if isinstance(step, Command):
            for name in made_by(step):
                if not (self.folder / name).exists():
                    self.missing[name] = f"{step.page}:{step.line} was not run ({why[:60]})"

    def run(self, step: Command | Snippet) -> subprocess.CompletedProcess[str]:
        """Run a step as a shell, or Python, would."""
        if isinstance(step, Snippet):
            script = self.folder / f"line_{step.line}.py"
            script.write_text(step.text, encoding="utf-8")
            command, limit_s = [sys.executable, script.name], LIMIT_S
        else:
            command, limit_s = ["bash", "-euo", "pipefail", "-c", step.text], estimate_s(step)
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE * max(limit_s, LIMIT_S),
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Return the environment of a reader who has installed this checkout."""
        programs = self.cache / "bin"
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path and path != _HERE),
            "MVSDK_CACHE": str(self.cache / "mvsdk"),
        }

    def try_out(self, command: Command) -> tuple[int, str]:
        """Ask what an export would make, in this process; return status and what was said."""
        said = io.StringIO()
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            status = cli.main([*command.words[1:], "--dry-run"])
        return status, said.getvalue()


_HERE = str(Path(__file__).parent)


def write_programs(folder: Path) -> None:
    """Write what a reader types: programs that are run by the Python of the tests."""
    modules = {"mvsdk": "-m mvsdk", "python": "", "torchrun": "-m torch.distributed.run"}
    folder.mkdir(parents=True)
    for name, module in modules.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n', encoding="utf-8")
        program.chmod(0o755)


def make_checkout(folder: Path) -> None:
    """Write what a reader has in a checkout, so that commands may change it."""
    for name in ("docs", "benchmarks"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)


def shape_of(text: str) -> list[str]:
    """Return the lines of an output without its numbers, rules and widths."""
    lines = (re.sub(r"[-+]?\d[\d.,]*", "0", line) for line in text.splitlines())
    return [" ".join(line.split()) for line in lines if line.strip()]


def has_shape(output: str, shown: str) -> bool:
    """Return whether an output has the lines that a page shows, in order; "..." is anything."""
    lines = iter(shape_of(output))
    return all(line == "..." or line in lines for line in shape_of(shown))
