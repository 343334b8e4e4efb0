"""What README.md and docs/*.md print: blocks of commands, of Python, of output, and code spans.

A page writes its commands in fenced blocks of ```sh, one a line, with a comment behind that may end
in how long it takes on two cores (`# 41 s`, `# every chip; 12 min`). Python stands in blocks of
```python, and what the command before it prints in a block of ```text output. Blocks that are
indented by four spaces are read too, and told apart by what is in them.
"""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("mvsdk", "python", "python3", "pip", "make", "torchrun", "hf", "xcrun", "git", "adb")
"""What a line of a block begins with, if the block is one of commands."""

_FENCE = re.compile(r"^ {0,3}(?P<ticks>`{3,})(?P<info>.*)$")
_TIME = re.compile(r"(?:^|[,;:] )(?P<number>\d+(?:\.\d+)?) (?P<unit>s|min|h)$")
_SPAN = re.compile(r"(?<!`)`(?P<text>[^`]+)`(?!`)")
_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code of a page."""

    line: int
    """Of its first line of code, from 1."""
    info: str
    """What a fence says behind its ticks; of an indented block what is in it."""
    text: str

    @property
    def language(self) -> str:
        """First word of `info`."""
        return self.info.split()[0] if self.info.split() else "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of a page."""

    page: str
    line: int
    text: str
    """Without the comment."""
    seconds: float | None
    """How long it takes, as the page says; None if it says nothing."""
    output: str | None = None
    """What the page shows that it prints."""

    @property
    def words(self) -> list[str]:
        """Words as a shell reads them."""
        return shlex.split(self.text)

    @property
    def label(self) -> str:
        """Place and text, for people."""
        return f"{self.page}:{self.line} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A block of Python of a page."""

    page: str
    line: int
    text: str

    @property
    def label(self) -> str:
        """Place and first line, for people."""
        return f"{self.page}:{self.line} {self.text.splitlines()[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page, taken apart."""

    name: str
    """Path from the root of the repository."""
    blocks: tuple[Block, ...]
    prose: tuple[tuple[int, str], ...]
    """Lines outside of blocks, with their numbers."""

    @property
    def steps(self) -> tuple[Command | Snippet, ...]:
        """Commands and snippets, in the order of the page."""
        found: list[Command | Snippet] = []
        for block in self.blocks:
            if block.language == "sh":
                found += _commands(self.name, block)
            elif block.info == "python":  # with a name behind it, it is a file
                found.append(Snippet(page=self.name, line=block.line, text=block.text))
            elif block.info == "text output" and found and isinstance(found[-1], Command):
                found[-1] = replace(found[-1], output=block.text)
        return tuple(found)

    @property
    def spans(self) -> tuple[tuple[int, str], ...]:
        """Code spans of the prose, with the number of the line in which they begin."""
        text = "\n".join(line for _, line in self.prose)
        numbers = [number for number, _ in self.prose]
        return tuple(
            (numbers[text.count("\n", 0, span.start())], " ".join(span["text"].split()))
            for paragraph in re.finditer(r"(?:.+\n?)+", text)
            for span in _SPAN.finditer(text, paragraph.start(), paragraph.end())
        )


@cache
def read_pages() -> tuple[Page, ...]:
    """Read README.md and every page of docs/."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return tuple(
        read_page(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths
    )


def read_page(name: str, text: str) -> Page:
    """Take a page apart.

    Args:
        name: What it is called.
        text: Markdown.
    """
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    lines = list(enumerate(text.splitlines(), start=1))
    while lines:
        number, line = lines.pop(0)
        if (fence := _FENCE.match(line)) is not None:
            inside: list[str] = []
            while lines and not lines[0][1].strip().startswith(fence["ticks"]):
                inside.append(lines.pop(0)[1])
            del lines[:1]
            blocks.append(_block(number + 1, "\n".join(inside), fence["info"].strip()))
        elif _is_indented(line) and _begins_block(prose):
            inside = [line]
            while lines and (_is_indented(lines[0][1]) or not lines[0][1].strip()):
                inside.append(lines.pop(0)[1])
            blocks.append(_block(number, "\n".join(inside).rstrip(), None))
            prose.append((number, ""))
        else:
            prose.append((number, line))
    return Page(name=name, blocks=tuple(blocks), prose=tuple(prose))


def _is_indented(line: str) -> bool:
    return line.startswith("    ") and bool(line.strip())


def _begins_block(prose: list[tuple[int, str]]) -> bool:
    """Return whether an indented line is code: not what goes on with a paragraph or a list."""
    if prose and prose[-1][1].strip():
        return False
    before = next((line for _, line in reversed(prose) if line.strip()), "")
    return not re.match(r"\s*([*+-]|\d+\.)\s|\s", before)


def _block(line: int, text: str, info: str | None) -> Block:
    text = textwrap.dedent(text)
    return Block(line=line, info=_language_of(text) if info is None else info, text=text)


def _language_of(text: str) -> str:
    """Return what an indented block is of."""
    code = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "#"))]
    if code and all(line.split()[0] in PROGRAMS for line in code):
        return "sh"
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return "text"
    imports = any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree))
    return "python" if imports else "text"


def _commands(page: str, block: Block) -> Iterator[Command]:
    started, first = "", block.line
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        first = first if started else number
        code, comment = split_comment(started + line.strip())
        if code.endswith("\\"):
            started = code.removesuffix("\\").rstrip() + " "
            continue
        started = ""
        if code:
            yield Command(page=page, line=first, text=code, seconds=read_time(comment))


def split_comment(line: str) -> tuple[str, str]:
    """Return a line of a shell without its comment, and the comment."""
    quote = ""
    for index, letter in enumerate(line):
        if letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif letter == "#" and not quote and (index == 0 or line[index - 1].isspace()):
            return line[:index].rstrip(), line[index + 1 :].strip()
    return line.rstrip(), ""


def read_time(comment: str) -> float | None:
    """Return the seconds that a comment ends in; None if it ends in something else."""
    found = _TIME.search(comment)
    return None if found is None else float(found["number"]) * _UNITS_S[found["unit"]]
