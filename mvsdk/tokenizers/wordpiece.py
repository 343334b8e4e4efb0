"""WordPiece: greedy longest match inside words: rules T30 to T37 of docs/tokenizers.md.

Reference:
    Devlin et al. 2018, "BERT", arXiv:1810.04805 (WordPiece as in its published tokenizer, which
    differs in lower case by Python's context-dependent rules, and by splitting CJK characters).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mvsdk._prompts import TooLong
from mvsdk.errors import InputError
from mvsdk.tokenizers._tokens import Row, Tokens, check_prompt
from mvsdk.tokenizers._unicode import category, lower, normalize, replace_unassigned
from mvsdk.tokenizers._vocabulary import (
    MAX_MARK,
    check_length,
    check_roles,
    number_tokens,
    read_vocabulary,
)

MAX_WORD = 100
"""Code points of the longest word that is cut into pieces."""

# Normal form KD has turned the other spaces into U+0020.
_SPACES = frozenset("\t\n\r \u1680\u2028\u2029")
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class WordPiece:
    """WordPiece with the rules of docs/tokenizers.md."""

    def __init__(
        self,
        tokens: Sequence[str],
        max_length: int,
        *,
        lowercase: bool = True,
        continuation: str = "##",
        pad: str = "[PAD]",
        unk: str = "[UNK]",
        too_long: TooLong = "refuse",
    ) -> None:
        """Build from a vocabulary in memory.

        Args:
            tokens: Pieces; the place of a piece is its number. No empty piece, none twice, at most
                `MAX_TOKENS`, each of at most `MAX_TOKEN` code points.
            max_length: Length of every encoded prompt, 1 to `MAX_LENGTH`.
            lowercase: Whether letters become lower case.
            continuation: Mark before pieces that do not start a word, at most `MAX_MARK` code
                points.
            pad: Piece that fills the end; must be in `tokens`, likewise.
            unk: Piece for words that cannot be spelled; must be in `tokens`, likewise.
            too_long: What happens to a prompt of more tokens.

        Raises:
            BundleError: If the vocabulary breaks one of these.
        """
        self._ids = number_tokens(tokens)
        check_length("continuation", continuation, MAX_MARK, "T26")
        check_roles(self._ids, pad=pad, unk=unk)
        self.max_length = max_length
        self.pad = pad
        self.unk = unk
        self._row = Row(max_length=max_length, pad=self._ids[pad], too_long=too_long)
        self._lowercase = lowercase
        self._continuation = continuation
        self._unk_id = self._ids[unk]
        self._longest = max(map(len, tokens))

    @classmethod
    def from_file(cls, path: Path, max_length: int, *, too_long: TooLong = "refuse") -> WordPiece:
        """Read the vocabulary file of a bundle.

        Args:
            path: JSON file: `{"kind": "wordpiece", "tokens": [...], "lowercase": true,
                "continuation": "##", "pad": "[PAD]", "unk": "[UNK]"}`; only the first two keys are
                required.
            max_length: Length of every encoded prompt.
            too_long: What happens to a prompt of more tokens.

        Raises:
            BundleError: If the file is missing, too big or not such a vocabulary.
        """
        fields = read_vocabulary(
            path,
            "wordpiece",
            required={"tokens": list},
            optional={"lowercase": bool, "continuation": str, "pad": str, "unk": str},
        )
        return cls(max_length=max_length, too_long=too_long, **fields)

    def encode(self, text: str) -> Tokens:
        """Return the token numbers of a prompt.

        Args:
            text: The prompt.

        Returns:
            Token numbers, padded at the end.

        Raises:
            InputError: If the prompt is empty, holds control characters, or is too long.
        """
        pieces = [piece for word in self._words(text) for piece in self.pieces(word)]
        if not pieces:
            raise InputError("prompt is empty; describe the clip in a few words", rule="T37")
        return self._row.fill(pieces)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a prompt that become the unknown token, each once, in order.

        Raises:
            InputError: If the prompt holds control characters or is far too long.
        """
        unknown = (word for word in self._words(text) if self.pieces(word) == [self._unk_id])
        return tuple(dict.fromkeys(unknown))

    def knows_a_word(self, text: str) -> bool:
        """Return whether any word of a prompt, punctuation aside, is not the unknown token.

        Raises:
            InputError: If the prompt holds control characters or is far too long.
        """
        words = (word for word in self._words(text) if not _is_punctuation(word[0]))
        return any(self.pieces(word) != [self._unk_id] for word in words)

    def _words(self, text: str) -> Iterator[str]:
        check_prompt(text)
        word: list[str] = []
        for char in self._normalise(text):
            if char in _SPACES or _is_punctuation(char):
                if word:
                    yield "".join(word)
                    word.clear()
                if char not in _SPACES:
                    yield char
            else:
                word.append(char)
        if word:
            yield "".join(word)

    def _normalise(self, text: str) -> Iterator[str]:
        for char in normalize("NFKD", replace_unassigned(text)):
            if category(char) not in {"Mn", "Cf"}:
                yield lower(char) if self._lowercase else char

    def pieces(self, word: str) -> list[int]:
        """Return the token numbers of one normalised word."""
        if len(word) > MAX_WORD:
            return [self._unk_id]
        pieces: list[int] = []
        start = 0
        while start < len(word):
            mark = self._continuation if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = self._ids.get(mark + word[start:end])
                if piece is not None:
                    pieces.append(piece)
                    start = end
                    break
            else:
                return [self._unk_id]
        return pieces


def _is_punctuation(char: str) -> bool:
    return char in _ASCII_PUNCTUATION or category(char).startswith("P")
