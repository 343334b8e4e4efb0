"""Core ML packages inside ExecuTorch programs, taken out to be checked.

A program that Core ML takes whole calls one delegate, with its inputs, and gives what that gives.
The delegate's data are the files of a package, one after the other, and at their end a table of
them in JSON, written backwards, last byte first.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvsdk._installed import toolchain_install
from mvsdk._text import quoted
from mvsdk.errors import BackendError, BundleError

MAX_FILES = 256
"""Files and folders of a delegate's data."""

MAX_TABLE_BYTES = 1 << 20
MAX_PATH = 512
"""Characters of the folders that a file lies in."""

_DELEGATE = "CoreMLBackend"
_PACKAGE = "model.mlpackage"
_METADATA = "metadata.json"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """Names that a package has for what a program takes and gives, in the program's order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def extract_package(path: Path, folder: Path) -> tuple[Path, Borders]:
    """Write the Core ML package of an ExecuTorch program into a folder.

    Args:
        path: The .pte file.
        folder: An empty folder.

    Returns:
        The package, and the names at its border.

    Raises:
        BackendError: If ExecuTorch is missing, which reads programs.
        BundleError: If the file is no program that calls Core ML once and does nothing else, or the
            package in it is damaged or unsafe.
    """
    call, data = _read_call(path)
    files = _read_files(path, data)
    names = _read_names(path, files)
    for place, content in files.items():
        if place.startswith(f"{_PACKAGE}/"):
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    if not (folder / _PACKAGE).is_dir():
        raise _damaged(path, f"has no {_PACKAGE} for its delegate")
    count = len(names.inputs)
    if sorted(call.inputs) != list(range(count)) or list(call.outputs) != list(
        range(len(names.outputs))
    ):
        raise _damaged(path, "gives its delegate something else than what it takes")
    inputs = [""] * count
    for place, argument in enumerate(call.inputs):
        inputs[argument] = names.inputs[place]
    return folder / _PACKAGE, Borders(inputs=tuple(inputs), outputs=names.outputs)


@dataclass(frozen=True, slots=True)
class _Call:
    """What a delegate is called with: places among the inputs and outputs of the program."""

    inputs: Sequence[int]
    outputs: Sequence[int]


def _read_call(path: Path) -> tuple[_Call, bytes]:
    """Return how a program calls its only delegate, and the delegate's data."""
    program = _parse(path)
    try:
        (plan,) = program.execution_plan
        (delegate,) = plan.delegates
        (chain,) = plan.chains
        (instruction,) = chain.instructions
        arguments = list(instruction.instr_args.args)
        data = program.backend_delegate_data[delegate.processed.index].data
    except (ValueError, AttributeError, IndexError, TypeError) as exc:
        raise _damaged(path, "is no program that calls Core ML and does nothing else") from exc
    if delegate.id != _DELEGATE:
        raise _damaged(path, f"calls {quoted(delegate.id)}, expected {_DELEGATE}")
    given, made = list(plan.inputs), list(plan.outputs)
    if len(arguments) != len(given) + len(made):
        raise _damaged(path, "gives its delegate something else than what it takes")
    places = [given.index(x) if x in given else -1 for x in arguments[: len(given)]]
    results = [made.index(x) if x in made else -1 for x in arguments[len(given) :]]
    return _Call(places, results), bytes(data)


def _parse(path: Path) -> Any:
    from mvsdk_export.quiet import quiet
    from mvsdk_export.targets.executorch.lowering import import_executorch

    try:
        serialize = import_executorch("exir._serialize._program")
    except Exception as exc:
        raise BackendError(
            f"programs are read by ExecuTorch ({exc}); run: {toolchain_install('executorch')}"
        ) from exc
    content = path.read_bytes()
    if content[4:6] != b"ET":
        raise _damaged(path, "is no ExecuTorch program")
    try:
        with quiet():
            return serialize.deserialize_pte_binary(content).program
    except Exception as exc:  # whatever the reader of flat buffers stumbles on
        raise _damaged(path, f"cannot be read ({type(exc).__name__})") from exc


def _read_files(path: Path, data: bytes) -> Mapping[str, memoryview]:
    """Return the files of a delegate's data by their place below its root."""
    # Backwards, the table comes first.
    tail = data[: -MAX_TABLE_BYTES - 1 : -1].decode("latin-1")
    try:
        nodes = json.JSONDecoder().raw_decode(tail)[0]["nodes"]
        found: dict[str, memoryview] = {}
        left = {place: nodes[place] for place in range(min(len(nodes), MAX_FILES))}
        _walk(left, len(nodes) - 1, "", memoryview(data), found)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        raise _damaged(path, "has a delegate whose table of files is damaged or unsafe") from exc
    if sum(map(len, found.values())) > len(data):
        raise _damaged(path, "has a delegate whose files lie upon each other")
    return found


def _walk(
    left: dict[int, Any], place: int, parent: str, data: memoryview, found: dict[str, memoryview]
) -> None:
    """Collect the files below a folder of the table, and take what was visited off the table.

    Raises:
        KeyError: If a file or folder lies in more than one, or in itself.
        ValueError: If a name leaves its folder, a path is too long, or a file lies outside.
    """
    for name, child in left.pop(place)["children"].items():
        if _NAME.fullmatch(name) is None or len(parent) > MAX_PATH:
            raise ValueError("a name is not allowed")
        if left[child]["kind"] == 1:
            _walk(left, child, f"{parent}{name}/", data, found)
            continue
        region = left.pop(child)["dataRegion"]
        start, size = region["offset"], region["size"]
        if not 0 <= start <= start + size <= len(data):
            raise ValueError("a file lies outside the data")
        found[f"{parent}{name}"] = data[start : start + size]


def _read_names(path: Path, files: Mapping[str, memoryview]) -> Borders:
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        read = json.loads(bytes(files[_METADATA]))
        names = Borders(inputs=tuple(read["inputNames"]), outputs=tuple(read["outputNames"]))
        if all(isinstance(name, str) for name in (*names.inputs, *names.outputs)):
            return names
    raise _damaged(path, f"has no {_METADATA} that names what its delegate takes and gives")


def _damaged(path: Path, what: str) -> BundleError:
    return BundleError(f"the program {path.name} {what}; export it again")
