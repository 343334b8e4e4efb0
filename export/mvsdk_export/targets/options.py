"""Values of options that targets read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mvsdk._text import quoted
from mvsdk.errors import InputError

COREML_SYSTEMS = ("iOS17", "iOS18", "iOS26")
"""Minimum OS that Core ML packages are made for."""
COREAI_SYSTEMS = ("iOS27",)
"""Minimum OS that Core AI assets are made for."""


def option_of(name: str) -> str:
    """Return an option as people type it."""
    return f"--{name.replace('_', '-')}"


def read_choice(option: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    """Return a value that is among those allowed.

    Raises:
        InputError: If it is not.
    """
    if value not in allowed:
        raise InputError(f"{option} is {quoted(value)}, allowed: {', '.join(allowed)}")
    return value


def read_count(option: str, value: int | None, least: int, most: int) -> Any:
    """Return a number within bounds; None for None.

    Raises:
        InputError: If it is not within them.
    """
    if value is not None and not least <= value <= most:
        raise InputError(f"{option} is {value}, allowed: {least} to {most}")
    return value


def read_system(text: str | None) -> str | None:
    """Return what `--deployment-target` says, as Apple's tools spell it.

    Raises:
        InputError: If no target is made for that system.
    """
    if text is None:
        return None
    number = re.fullmatch(r"i?(?:os)?([0-9]{1,3})", text.strip(), re.IGNORECASE)
    system = f"iOS{int(number[1])}" if number else text
    return read_choice("--deployment-target", system, (*COREML_SYSTEMS, *COREAI_SYSTEMS))


def choose_system(
    text: str | None, formats: Sequence[str], format_: str, allowed: Sequence[str], default: str
) -> str:
    """Return the minimum OS of a format of the target iphone.

    Args:
        text: What `--deployment-target` says.
        formats: All that are made: a system that goes with another of them is not meant for this.
        format_: The one.
        allowed: Systems that it is made for.
        default: Where nobody chooses.

    Raises:
        InputError: If it is not made for that system.
    """
    system = read_system(text)
    if system is None or system in allowed:
        return system or default
    if len(formats) > 1:
        return default
    raise InputError(
        f"--deployment-target {system} does not go with --format {format_}; allowed: "
        f"{', '.join(allowed)}"
    )


def read_formats(options: Any) -> tuple[str, ...]:
    """Return the formats of the target iphone that are asked for.

    Raises:
        InputError: If one is not known.
    """
    if options.format is None:
        if options.target == "all":
            return ("coreml", "coreai")
        later = read_system(options.deployment_target) in COREAI_SYSTEMS
        return ("coreai",) if later else ("coreml",)
    words = options.format.split(",")
    for word in words:
        read_choice("--format", word, ("coreml", "coreai"))
    return tuple(dict.fromkeys(words))


def check_palettes(precisions: Sequence[str]) -> None:
    """Refuse `--palette-group` where no weight has a palette for some of its channels.

    Raises:
        InputError: If so.
    """
    if not set(precisions) & {"w8", "w6", "w4"}:
        raise InputError(
            f"--palette-group goes with --precision w8, w6 or w4, not {', '.join(precisions)}; "
            "leave it out"
        )
