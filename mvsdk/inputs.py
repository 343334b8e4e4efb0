"""What a caller gives, checked and made what a program takes, before any graph is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mvsdk._arguments import check_kind, check_number, check_whole_number, shown
from mvsdk.errors import InputError
from mvsdk.manifest import (
    ClipInput,
    NegativePromptInput,
    NumberInput,
    PictureInput,
    Program,
    Tokenize,
)
from mvsdk.runner import text_of
from mvsdk.tokenizers import check_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.manifest import Input, InputKind
    from mvsdk.tokenizers import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a program is carried out with, and what its caller is to know."""

    values: Mapping[str, str | float | NDArray[Any]]
    """For each input: its text, its number (float64) or its array (uint8)."""
    numbers: Mapping[str, float]
    """Those of the values that are numbers."""
    notes: tuple[str, ...] = field(default=())
    """Such as how much of a prompt was cut."""


def join_numbers(
    named: Mapping[str, float | None], numbers: Mapping[str, float] | None
) -> dict[str, float]:
    """Join numbers that have an argument of their own with others.

    Args:
        named: None where an argument was not given.
        numbers: The others; None for none.

    Raises:
        InputError: If one is given twice.
    """
    joined = {name: value for name, value in named.items() if value is not None}
    for name, value in _checked(numbers).items():
        if name in joined:
            raise InputError(f"{name} is given twice, also in numbers; leave one out")
        joined[name] = value
    return joined


def name_inputs(
    program: Program, given: Mapping[InputKind, object], numbers: Mapping[str, float] | None
) -> dict[str, object]:
    """Return what a caller gives, by the names that a program has for it.

    Args:
        program: What is to be carried out.
        given: Of each kind the only input (P1), which the kind names where there is none.
        numbers: By name; None for none.

    Raises:
        InputError: If the program has no number of a name.
    """
    known = [name for name, item in program.inputs.items() if isinstance(item, NumberInput)]
    chosen = _checked(numbers)
    for name in chosen:
        if name not in known:
            raise InputError(
                f"this bundle has no number {shown(name)}; it has: {', '.join(known) or 'none'}; "
                "leave it out"
            )
    return {**chosen, **{program.input_of(kind) or kind: x for kind, x in given.items()}}


def _checked(numbers: Mapping[str, float] | None) -> Mapping[str, float]:
    if numbers is None:
        return {}
    check_kind("numbers", numbers, Mapping, how="pass a dict: name to number")
    return numbers


def prepare(
    program: Program,
    given: Mapping[str, object],
    *,
    tokenize: Callable[[str, str], Tokens],
) -> Prepared:
    """Check and prepare what a caller gave.

    Args:
        program: What is to be carried out.
        given: By the name of an input. Of those that are numbers each may be left out or None.
        tokenize: (tokenizer, text) -> its tokens.

    Raises:
        InputError: If something is missing, not known to the program, or not allowed.
    """
    _check_names(program, given)
    values = {name: _prepare(name, item, given.get(name)) for name, item in program.inputs.items()}
    numbers = {name: value for name, value in values.items() if isinstance(value, float)}
    notes = _check_texts(program, values, tokenize)
    return Prepared(values=values, numbers=numbers, notes=notes)


def _check_names(program: Program, given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if name not in program.inputs and value is not None:
            known = ", ".join(program.inputs) or "nothing"
            raise InputError(f"this bundle takes no {shown(name)}; it takes: {known}; leave it out")
    for name, item in program.inputs.items():
        if item.kind not in ("number", "negative_prompt") and given.get(name) is None:
            raise InputError(f"{name} is missing; this bundle needs a {item.kind}")


def _prepare(name: str, item: Input, value: object) -> str | float | NDArray[Any]:
    match item:
        case NumberInput():
            return item.default if value is None else _number(name, item, value)
        case PictureInput():
            from mvsdk.image import load_image

            return load_image(value, item.height, item.width)[None]  # type: ignore[arg-type]
        case ClipInput():
            from mvsdk.clips import load_clip

            return load_clip(
                value,  # type: ignore[arg-type]
                frames=item.frames,
                height=item.height,
                width=item.width,
                fps=item.fps,
            ).frames
        case NegativePromptInput() if value is None or value == "":
            return ""
        case _:
            check_prompt(value)  # type: ignore[arg-type]
            return str(value)


def _number(name: str, item: NumberInput, value: object) -> float:
    if item.whole:
        return float(check_whole_number(name, value, low=int(item.minimum), high=int(item.maximum)))
    return check_number(name, value, low=item.minimum, high=item.maximum)


def _check_texts(
    program: Program,
    values: Mapping[str, Any],
    tokenize: Callable[[str, str], Tokens],
) -> tuple[str, ...]:
    """Tokenise every text once, so that one that is too long is refused before anything runs.

    Returns:
        What is to be said of those that were cut.
    """
    notes: list[str] = []
    for operation in program.walk():
        if isinstance(operation, Tokenize):
            tokens = tokenize(operation.tokenizer, text_of(operation, values))
            if tokens.dropped and operation.input is not None:
                what = program.inputs[operation.input].kind.replace("_", " ")
                notes.append(_cut(what, tokens.dropped))
    return tuple(dict.fromkeys(notes))


def _cut(what: str, dropped: int) -> str:
    tokens, are = ("tokens", "are") if dropped > 1 else ("token", "is")
    return f"the {what} is too long for this model: its last {dropped} {tokens} {are} left out"
