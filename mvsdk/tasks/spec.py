"""What a task promises, and how it is asked for: one file per task beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

InputKind = Literal["prompt", "negative_prompt", "picture", "clip", "number"]

_FORMATS = {
    "prompt": "",
    "negative_prompt": "",
    "picture": "PNG JPEG WebP GIF BMP TIFF",
    "clip": "MP4 MOV WebM Matroska AVI GIF WebP",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """What stands after a verb of the command line."""

    name: str
    """As help shows it, in lower case, such as "image"."""
    kind: InputKind
    help: str = ""
    """Formats of files follow by themselves."""
    required: bool = True

    @property
    def help_text(self) -> str:
        """Help, with the formats that are read."""
        return ": ".join(filter(None, (self.help, _FORMATS[self.kind])))


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberOption:
    """An option of a verb for a number that bundles of the task may have."""

    flag: str
    name: str
    """Of the number, as a program and the method of `Pipeline` call it."""
    metavar: str
    whole: bool = False
    help: str | None = None
    """None: it is told beside another, as the help of a verb fits a screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task."""

    name: str
    inputs: Mapping[InputKind, tuple[int, int]]
    """Kind of input of a program -> least and most of them; numbers are free, and so is a negative
    prompt beside a prompt (rule P1)."""
    command: str
    """Verb of the command line."""
    help: str
    arguments: tuple[Argument, ...]
    """What stands after the verb, in the order in which the method takes it."""
    named_after: tuple[str, ...]
    """Arguments that a clip without a name of its own is called after: the first that is given."""
    negative: bool = False
    """Whether the method takes a negative prompt."""
    numbers: tuple[NumberOption, ...] = field(default=())
    method: str | None = None
    """Of `Pipeline`; None: `run`, which takes inputs by their names."""
    export: str = "mvsdk export --target onnx --checkpoint DIR"
    """A command that makes a bundle for it."""

    @property
    def verb(self) -> str:
        """Verb, and what must stand after it."""
        needed = (item.name.upper() for item in self.arguments if item.required)
        return " ".join((self.command, *needed))

    def __str__(self) -> str:
        """Return both ways to ask for it."""
        return f"Pipeline.{self.method or 'run'} or mvsdk {self.verb}"
