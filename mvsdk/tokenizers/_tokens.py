"""What every tokenizer takes, gives and refuses: rules T1 to T9 of docs/tokenizers.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mvsdk._arguments import check_choice, check_text
from mvsdk._prompts import MAX_LENGTH, MAX_PROMPT, TOO_LONG, TooLong, is_blank
from mvsdk.errors import BundleError, InputError
from mvsdk.tokenizers._unicode import category

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A prompt as a network reads it."""

    ids: NDArray[np.int32]
    """Token numbers, padded at the end. Int32, (1, max_length)."""
    dropped: int = 0
    """Tokens at the end of the prompt that had no room; 0 unless long prompts are cut."""
    used: int = 0
    """Places of `ids` that hold a token, from the first; the rest only fills up."""

    @property
    def mask(self) -> NDArray[np.int32]:
        """1 for a token, 0 for what fills up. Int32, (1, max_length)."""
        mask = np.zeros(self.ids.shape, np.int32)
        mask[0, : self.used] = 1
        return mask


class Tokenizer(Protocol):
    """What a pipeline needs of a tokenizer."""

    @property
    def max_length(self) -> int:
        """Length of every encoded prompt."""
        ...

    @property
    def pad(self) -> str:
        """The token that fills the end."""
        ...

    @property
    def unk(self) -> str:
        """The token for what cannot be spelled."""
        ...

    def encode(self, text: str) -> Tokens:
        """Return the token numbers of a prompt."""
        ...

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a prompt that the vocabulary cannot spell."""
        ...

    def knows_a_word(self, text: str) -> bool:
        """Return whether the vocabulary can spell any word of a prompt."""
        ...


def check_prompt(text: str, *, may_be_blank: bool = False) -> None:
    """Check a prompt before anything is done with it.

    Args:
        text: The prompt.
        may_be_blank: Whether no words at all are a prompt too, as for the part of classifier-free
            guidance that has none.

    Raises:
        InputError: If it is no text, longer than `MAX_PROMPT`, holds control characters or half a
            surrogate pair, or is blank.
    """
    check_text("prompt", text)
    if len(text) > MAX_PROMPT:
        raise InputError(
            f"prompt has {len(text)} characters, at most {MAX_PROMPT} are allowed; shorten it",
            rule="T2",
        )
    for place, char in enumerate(text):
        if "\ud800" <= char <= "\udfff" or (category(char) == "Cc" and char not in "\t\n\r"):
            raise InputError(
                f"prompt holds the control character U+{ord(char):04X} at position {place}; "
                "allowed: printable text; remove it",
                rule="T3",
            )
    if not may_be_blank and is_blank(text):
        raise InputError("prompt is empty; describe the clip in a few words", rule="T4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How the tokens of a prompt fill the `max_length` places of a network's input."""

    max_length: int
    pad: int
    start: tuple[int, ...] = ()
    """Numbers before those of the prompt."""
    end: tuple[int, ...] = ()
    """Numbers after those of the prompt, also where it is cut."""
    too_long: TooLong = "refuse"

    def __post_init__(self) -> None:
        """Refuse a length that leaves no room, and another word for `too_long`.

        Raises:
            BundleError: Of the length.
            InputError: Of the word.
        """
        least = len(self.start) + len(self.end) + 1
        if not least <= self.max_length <= MAX_LENGTH:
            raise BundleError(
                f"tokenizer max_length is {self.max_length}; allowed: {least} to {MAX_LENGTH}",
                rule="T6",
            )
        check_choice("too_long", self.too_long, TOO_LONG)

    def fill(self, ids: Sequence[int]) -> Tokens:
        """Return the numbers of a prompt between those of its ends, padded.

        Raises:
            InputError: If they are too many, and long prompts are refused.
        """
        room = self.max_length - len(self.start) - len(self.end)
        dropped = max(0, len(ids) - room)
        if dropped and self.too_long == "refuse":
            raise InputError(
                f"prompt has {len(ids)} tokens, this model takes at most {room}; "
                "shorten the prompt",
                rule="T8",
            )
        used = (*self.start, *ids[:room], *self.end)
        row = np.full((1, self.max_length), self.pad, np.int32)
        row[0, : len(used)] = used
        return Tokens(row, dropped, len(used))
