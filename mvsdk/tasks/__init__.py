"""The tasks: what each makes a clip of, and how a caller asks for it.

A task is a file here and a line in `_NAMES`: a promise about the inputs of a program
(docs/bundle_format.md, P1), the verb of the command line and the method of `Pipeline`. Whatever
runs programs knows tasks only through this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from mvsdk._arguments import check_text
from mvsdk._text import quoted
from mvsdk.errors import InputError
from mvsdk.tasks.spec import Argument, InputKind, NumberOption, TaskSpec

if TYPE_CHECKING:
    from mvsdk.manifest import Manifest, Program, Task

__all__ = [
    "TASKS",
    "Argument",
    "InputKind",
    "NumberOption",
    "TaskSpec",
    "deciding_components",
    "find_program",
    "named_program",
]

_NAMES = (
    "text_to_video",
    "image_to_video",
    "video_to_video",
    "upscale",
)
"""Of tasks and of their modules here, in the order in which help shows them."""
TASKS: Mapping[str, TaskSpec] = {name: import_module(f"{__name__}.{name}").SPEC for name in _NAMES}


def named_program(manifest: Manifest, name: str | None) -> Program:
    """Return the program of a bundle that has a name; the default one for None.

    Raises:
        InputError: If it has none of that name.
    """
    if name is None:
        return manifest.program
    check_text("program", name)
    programs = {program.name: program for program in manifest.programs}
    if name not in programs:
        known = ", ".join(programs)
        raise InputError(f"bundle {manifest.name} has no program {quoted(name)}; it has: {known}")
    return programs[name]


def deciding_components(manifest: Manifest, program: Program) -> tuple[str, ...]:
    """Return what a set is chosen by: the denoisers, else what the program runs first (C1)."""
    names = program.components()
    denoisers = tuple(name for name in names if manifest.components[name].role == "denoiser")
    return denoisers or names[:1]


def find_program(manifest: Manifest, task: Task, name: str | None = None) -> Program:
    """Return the program of a bundle for a task: that of a name, or the first.

    Raises:
        InputError: If the bundle is for another task, or has no program of that name for it.
    """
    fitting = {program.name: program for program in manifest.programs if program.task == task}
    if not fitting:
        other = manifest.program.task
        raise InputError(
            f"bundle {manifest.name} is for {other}, not {task}; "
            f"use {TASKS[other]}, or choose another bundle"
        )
    if name is None:
        return next(iter(fitting.values()))
    if name not in fitting:
        raise InputError(
            f"bundle {manifest.name} has no program {quoted(name)} for {task}; "
            f"it has: {', '.join(fitting)}; choose one"
        )
    return fitting[name]
