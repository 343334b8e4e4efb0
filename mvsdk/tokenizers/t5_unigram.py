"""T5's unigram pieces, as SentencePiece finds them: rules T60 to T70 of docs/tokenizers.md.

Reference:
    Kudo 2018, "Subword Regularization", arXiv:1804.10959 (the unigram model); Kudo and Richardson
    2018, "SentencePiece", arXiv:1808.06226 (normal form nmt_nfkc, the sign U+2581 for a space).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from mvsdk._json import describe, to_float32
from mvsdk._prompts import TooLong
from mvsdk.errors import BundleError
from mvsdk.tokenizers._tokens import Row, Tokens, check_prompt
from mvsdk.tokenizers._unicode import category, normalize
from mvsdk.tokenizers._vocabulary import check_roles, number_tokens, read_vocabulary

SPACE = "\u2581"
"""What stands for a space in tokens."""
MAX_SCORE = 1e6
"""Largest size of a score: sums of the longest prompt stay finite in float32."""
UNKNOWN_PENALTY = 10.0

_LONGEST_SEQUENCE = 4
"""Code points of the longest normal form KD of what is one code point in normal form C."""
_SPACES = frozenset("\t\n\r \u061c\u1680\u200b\u200c\u200e\u200f\u2028\u2029\u2581\ufeff\ufffd")
_KEPT = "\uff5e"  # the wide tilde of Japanese is not the narrow one


class T5Unigram:
    """The unigram model with the rules of docs/tokenizers.md."""

    def __init__(
        self,
        tokens: Sequence[str],
        scores: Sequence[float],
        max_length: int,
        *,
        pad: str = "<pad>",
        unk: str = "<unk>",
        end: str = "</s>",
        too_long: TooLong = "refuse",
    ) -> None:
        """Build from a vocabulary in memory.

        Args:
            tokens: Pieces; the place of a piece is its number. No empty piece, none twice, at most
                `MAX_TOKENS`, each of at most `MAX_TOKEN` code points.
            scores: Logarithm of each piece's probability, in the order of `tokens`: numbers that
                float32 holds exactly, at most `MAX_SCORE` in size.
            max_length: Length of every encoded prompt, 2 to `MAX_LENGTH`.
            pad: Piece that fills the end; must be in `tokens`, at most `MAX_MARK` code points.
            unk: Piece for letters that are no piece, likewise.
            end: Piece after every prompt, likewise.
            too_long: What happens to a prompt of more tokens.

        Raises:
            BundleError: If the vocabulary breaks one of these.
        """
        ids = number_tokens(tokens)
        check_roles(ids, pad=pad, unk=unk, end=end)
        _check_scores(scores, len(tokens))
        self.max_length = max_length
        self.pad = pad
        self.unk = unk
        self._unk_id = ids[unk]
        self._row = Row(max_length=max_length, pad=ids[pad], end=(ids[end],), too_long=too_long)
        self._pieces = {
            token: (ids[token], float(score))
            for token, score in zip(tokens, scores, strict=True)
            if token not in {pad, unk, end}
        }
        lowest = min((score for _, score in self._pieces.values()), default=0.0)
        self._unknown_score = to_float32(lowest - UNKNOWN_PENALTY)
        self._sorted = sorted(self._pieces)
        self._longest = max(map(len, self._sorted), default=0)
        self._shorter = _prefixes(self._sorted)

    @classmethod
    def from_file(cls, path: Path, max_length: int, *, too_long: TooLong = "refuse") -> T5Unigram:
        """Read the vocabulary file of a bundle.

        Args:
            path: JSON file: `{"kind": "t5_unigram", "tokens": [...], "scores": [...], "pad": "...",
                "unk": "...", "end": "..."}`, all required.
            max_length: Length of every encoded prompt.
            too_long: What happens to a prompt of more tokens.

        Raises:
            BundleError: If the file is missing, too big or not such a vocabulary.
        """
        lists = {"tokens": list, "scores": list}
        roles = {"pad": str, "unk": str, "end": str}
        fields = read_vocabulary(path, "t5_unigram", required={**lists, **roles})
        return cls(max_length=max_length, too_long=too_long, **fields)

    def encode(self, text: str) -> Tokens:
        """Return the token numbers of a prompt.

        Args:
            text: The prompt; of a blank one the end token remains.

        Returns:
            Token numbers and the end token, padded.

        Raises:
            InputError: If the prompt holds control characters, or is too long.
        """
        return self._row.fill([number for _, number in self._segments(text)])

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return what becomes the unknown token of a prompt, each once, in order.

        Raises:
            InputError: If the prompt holds control characters or is far too long.
        """
        segments = self._segments(text)
        unknown = (part.strip(SPACE) for part, number in segments if number == self._unk_id)
        return tuple(dict.fromkeys(filter(None, unknown)))

    def knows_a_word(self, text: str) -> bool:
        """Return whether any piece of a prompt that holds a letter or digit is known.

        Raises:
            InputError: If the prompt holds control characters or is far too long.
        """
        return any(
            number != self._unk_id and any(category(char)[0] in "LN" for char in part)
            for part, number in self._segments(text)
        )

    def _segments(self, text: str) -> Iterator[tuple[str, int]]:
        """Give the pieces of a prompt and their numbers; unknown ones beside each other are one."""
        check_prompt(text, may_be_blank=True)
        normal = _mark_spaces(_normalise(text))
        unknown = ""
        for first, past, number in self._best_path(normal):
            if number == self._unk_id:
                unknown += normal[first:past]
                continue
            if unknown:
                yield unknown, self._unk_id
                unknown = ""
            yield normal[first:past], number
        if unknown:
            yield unknown, self._unk_id

    def _best_path(self, text: str) -> list[tuple[int, int, int]]:
        """Return the pieces of the highest sum of scores: first, past the last, number.

        Sums are float32, added from the left; of equal ones the first that is found stays, which is
        the one whose last piece is the longest.
        """
        best: list[tuple[float, int, int] | None] = [(0.0, 0, 0), *[None] * len(text)]
        for first in range(len(text)):
            here = cast("tuple[float, int, int]", best[first])[0]
            length = 0
            for piece in self._pieces_at(text, first):
                number, score = self._pieces[piece]
                length = len(piece)
                _keep_better(best, first + length, here + score, first, number)
            if length != 1:  # no piece of one letter, which would have come last
                _keep_better(best, first + 1, here + self._unknown_score, first, self._unk_id)
        path: list[tuple[int, int, int]] = []
        past = len(text)
        while past > 0:
            _, first, number = cast("tuple[float, int, int]", best[past])
            path.append((first, past, number))
            past = first
        return path[::-1]

    def _pieces_at(self, text: str, first: int) -> Iterator[str]:
        """Give the pieces that stand at a place, the longest first.

        All are beginnings of the last piece that is not above the rest of the text in sorted order,
        as what lies between a beginning and the text begins so too. So the time is that of one
        search and of what matches, however long other pieces are.
        """
        rest = text[first : first + self._longest]
        place = bisect_right(self._sorted, rest) - 1
        while place >= 0:
            if rest.startswith(self._sorted[place]):
                yield self._sorted[place]
            place = self._shorter[place]


def _prefixes(pieces: Sequence[str]) -> list[int]:
    """Return where the longest other piece stands that each begins with, -1 if there is none.

    Args:
        pieces: Sorted.
    """
    found: list[int] = []
    for place, piece in enumerate(pieces):
        shorter = place - 1
        while shorter >= 0 and not piece.startswith(pieces[shorter]):
            shorter = found[shorter]
        found.append(shorter)
    return found


def _keep_better(
    best: list[tuple[float, int, int] | None], past: int, score: float, first: int, number: int
) -> None:
    known, total = best[past], to_float32(score)
    if known is None or total > known[0]:
        best[past] = (total, first, number)


def _check_scores(scores: Sequence[object], count: int) -> None:
    if len(scores) != count:
        raise BundleError(
            f"vocabulary has {len(scores)} scores for {count} tokens; export again", rule="T61"
        )
    for score in scores:
        if (
            not isinstance(score, int | float)
            or isinstance(score, bool)
            or not abs(score) <= MAX_SCORE
            or to_float32(score) != score
        ):
            raise BundleError(
                f"vocabulary has the score {describe(score)}, expected a number of float32 within "
                f"+-{MAX_SCORE:g}; export again",
                rule="T61",
            )


def _normalise(text: str) -> str:
    """Return the text in the normal form nmt_nfkc of SentencePiece."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        length, part = _next_part(text, at)
        parts.append(part)
        at += length
    return "".join(parts)


def _next_part(text: str, at: int) -> tuple[int, str]:
    """Return how many code points are taken here, and what becomes of them."""
    rest = text[at + 1 : at + _LONGEST_SEQUENCE]
    for length in range(len(rest) + 1 if rest > "\x7f" else 1, 1, -1):  # none goes on in ASCII
        joined = _compose(text[at : at + length])
        if joined is not None:
            return length, joined
    char = text[at]
    if char in _SPACES:
        return 1, " "
    return 1, char if char == _KEPT else normalize("NFKC", char)


def _compose(text: str) -> str | None:
    """Return the one code point that these several are the whole decomposition of, if any."""
    parts = [normalize("NFKD", char) for char in text]
    if any(len(part) != 1 for part in parts):
        return None
    decomposed = "".join(parts)
    composed = normalize("NFC", decomposed)
    if len(composed) == 1 and normalize("NFKD", composed) == decomposed:
        return composed
    return None


def _mark_spaces(text: str) -> str:
    words = [word for word in text.split(" ") if word]
    return "".join(SPACE + word for word in words)
