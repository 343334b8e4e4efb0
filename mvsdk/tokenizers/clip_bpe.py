"""CLIP's byte-level byte-pair encoding: rules T40 to T50 of docs/tokenizers.md.

Every text can be spelled in bytes, so nothing is unknown as long as the vocabulary has all 256 of
them, inside words and at their ends.

Reference:
    Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
    arXiv:2103.00020; Sennrich et al. 2016, arXiv:1508.07909 (byte-pair encoding). Numbers are those
    of `CLIPTokenizer` of transformers, which knows no repair of broken text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from pathlib import Path

from mvsdk._json import describe, quote
from mvsdk._prompts import WHITE_SPACE, TooLong
from mvsdk.errors import BundleError
from mvsdk.tokenizers._tokens import Row, Tokens, check_prompt
from mvsdk.tokenizers._unicode import category, lower, normalize
from mvsdk.tokenizers._vocabulary import (
    MAX_TOKENS,
    check_roles,
    number_tokens,
    read_vocabulary,
)

END_OF_WORD = "</w>"

_ENDINGS = ("'re", "'ve", "'ll", "'s", "'t", "'m", "'d")
# One word each for what looks at the text before them, and three for the merges.
_MARKERS = {
    "<|startoftext|>": ("<|", "startoftext", "|>"),
    "<|endoftext|>": ("<|", "endoftext", "|>"),
}
_VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN = tuple(byte for byte in range(0x100) if byte not in _VISIBLE)
BYTE_LETTERS = {
    **{byte: chr(byte) for byte in _VISIBLE},
    **{byte: chr(0x100 + place) for place, byte in enumerate(_HIDDEN)},
}
"""Byte -> the letter that stands for it in tokens: itself, or a later one if it cannot be seen."""


class ClipBpe:
    """Byte-level byte-pair encoding with the rules of docs/tokenizers.md."""

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Sequence[str],
        max_length: int,
        *,
        start: str = "<|startoftext|>",
        end: str = "<|endoftext|>",
        pad: str = "<|endoftext|>",
        unk: str = "<|endoftext|>",
        too_long: TooLong = "refuse",
    ) -> None:
        """Build from a vocabulary in memory.

        Args:
            tokens: Pieces; the place of a piece is its number. No empty piece, none twice, at most
                `MAX_TOKENS`, each of at most `MAX_TOKEN` code points.
            merges: Two pieces with one space between them, the most wanted first, none twice; both
                and the piece that they make are in `tokens`.
            max_length: Length of every encoded prompt, 3 to `MAX_LENGTH`.
            start: Piece before every prompt; must be in `tokens`, at most `MAX_MARK` code points.
            end: Piece after every prompt, likewise.
            pad: Piece that fills what is left, likewise.
            unk: Piece for a byte that is not in `tokens`, likewise.
            too_long: What happens to a prompt of more tokens.

        Raises:
            BundleError: If the vocabulary breaks one of these.
        """
        self._ids = number_tokens(tokens)
        check_roles(self._ids, start=start, end=end, pad=pad, unk=unk)
        self._ranks = _rank_merges(merges, self._ids)
        self.max_length = max_length
        self.pad = pad
        self.unk = unk
        self._unk_id = self._ids[unk]
        self._row = Row(
            max_length=max_length,
            pad=self._ids[pad],
            start=(self._ids[start],),
            end=(self._ids[end],),
            too_long=too_long,
        )
        roles = sorted({start, end, pad, unk}, key=len, reverse=True)
        self._roles = re.compile("|".join(map(re.escape, roles)))

    @classmethod
    def from_file(cls, path: Path, max_length: int, *, too_long: TooLong = "refuse") -> ClipBpe:
        """Read the vocabulary file of a bundle.

        Args:
            path: JSON file: `{"kind": "clip_bpe", "tokens": [...], "merges": [...], "start": "...",
                "end": "...", "pad": "...", "unk": "..."}`, all required.
            max_length: Length of every encoded prompt.
            too_long: What happens to a prompt of more tokens.

        Raises:
            BundleError: If the file is missing, too big or not such a vocabulary.
        """
        lists = {"tokens": list, "merges": list}
        roles = {"start": str, "end": str, "pad": str, "unk": str}
        fields = read_vocabulary(path, "clip_bpe", required={**lists, **roles})
        return cls(max_length=max_length, too_long=too_long, **fields)

    def encode(self, text: str) -> Tokens:
        """Return the token numbers of a prompt.

        Args:
            text: The prompt; of a blank one start and end remain.

        Returns:
            Token numbers between start and end, padded.

        Raises:
            InputError: If the prompt holds control characters, or is too long.
        """
        return self._row.fill([piece for _, pieces in self._words(text) for piece in pieces])

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a prompt with a byte that the vocabulary lacks, each once, in order.

        Raises:
            InputError: If the prompt holds control characters or is far too long.
        """
        words = self._words(text)
        unknown = (word for word, ids in words if word != self.unk and self._unk_id in ids)
        return tuple(dict.fromkeys(unknown))

    def knows_a_word(self, text: str) -> bool:
        """Return whether any word of letters or digits of a prompt is spelled whole.

        Raises:
            InputError: If the prompt holds control characters or is far too long.
        """
        return any(
            category(word[0])[0] in "LN" and self._unk_id not in ids
            for word, ids in self._words(text)
        )

    def _words(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """Give every word of a prompt, normalised, and its numbers."""
        check_prompt(text, may_be_blank=True)
        for part, is_role in _split_roles(text, self._roles):
            if is_role:
                yield part, [self._ids[part]]
            else:
                for word in _split_words(_lower_case(normalize("NFC", part))):
                    yield word, self.pieces(word)

    def pieces(self, word: str) -> list[int]:
        """Return the token numbers of one normalised word."""
        letters = [BYTE_LETTERS[byte] for byte in word.encode()]
        letters[-1] += END_OF_WORD
        return [self._ids.get(symbol, self._unk_id) for symbol in _merge(letters, self._ranks)]


def _rank_merges(merges: Sequence[object], ids: Mapping[str, int]) -> dict[tuple[str, str], int]:
    if len(merges) > MAX_TOKENS:
        raise BundleError(
            f"vocabulary has {len(merges)} merges, at most {MAX_TOKENS} are allowed; export again",
            rule="T41",
        )
    ranks: dict[tuple[str, str], int] = {}
    for rank, merge in enumerate(merges):
        left, space, right = merge.partition(" ") if isinstance(merge, str) else ("", "", "")
        if not space or " " in right or not {left, right, left + right} <= ids.keys():
            raise BundleError(
                f"vocabulary has the merge {describe(merge)}, expected two tokens that make a "
                "third, with a space between them; export again",
                rule="T41",
            )
        if ranks.setdefault((left, right), rank) != rank:
            raise BundleError(
                f"vocabulary holds the merge {quote(f'{left} {right}')} twice; export again",
                rule="T41",
            )
    return ranks


def _split_roles(text: str, roles: re.Pattern[str]) -> Iterator[tuple[str, bool]]:
    """Give the parts of a text in order, and whether each is a token with a task of its own."""
    at = 0
    for match in roles.finditer(text):
        yield text[at : match.start()], False
        yield match[0], True
        at = match.end()
    yield text[at:], False


def _lower_case(text: str) -> str:
    return "".join(map(lower, text))


def _split_words(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if marker := _starts(text, at, tuple(_MARKERS)):
            yield from _MARKERS[marker]
            at += len(marker)
            continue
        past = _word_end(text, at)
        if text[at] not in WHITE_SPACE:
            yield text[at:past]
        at = past


def _word_end(text: str, at: int) -> int:
    """Return where the word ends that begins here; white space and digits are alone."""
    if ending := _starts(text, at, _ENDINGS):
        return at + len(ending)
    kind, past = _kind(text[at]), at + 1
    while kind in "LO" and past < len(text) and _kind(text[past]) == kind:
        past += 1
    return past


def _starts(text: str, at: int, words: Sequence[str]) -> str | None:
    return next((word for word in words if text.startswith(word, at)), None)


def _kind(char: str) -> str:
    """Return "S" for white space, "L" for letters, "N" for numbers and "O" for others."""
    if char in WHITE_SPACE:
        return "S"
    first = category(char)[0]
    return first if first in "LN" else "O"


def _merge(symbols: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Join neighbours: of all pairs that may be joined the first in `ranks`, then the leftmost.

    A heap holds every pair that may be joined, so that the longest prompt takes no long time; a
    pair whose symbols have changed since is passed over.
    """
    left = list(range(-1, len(symbols) - 1))
    right = list(range(1, len(symbols) + 1))

    def pair(at: int) -> tuple[str, str]:
        return symbols[at], symbols[right[at]] if right[at] < len(symbols) else ""

    heap = [(ranks[pair(at)], at) for at in range(len(symbols)) if pair(at) in ranks]
    heapify(heap)
    while heap:
        rank, at = heappop(heap)
        if ranks.get(pair(at)) != rank:
            continue
        gone = right[at]
        symbols[at] += symbols[gone]
        symbols[gone] = ""
        right[at] = right[gone]
        if right[at] < len(symbols):
            left[right[at]] = at
        for place in (left[at], at):
            if place >= 0 and pair(place) in ranks:
                heappush(heap, (ranks[pair(place)], place))
    return [symbol for symbol in symbols if symbol]
