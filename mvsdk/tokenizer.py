"""Text to token numbers, specified so that Kotlin and Swift give the same numbers.

The rules, in order, all on Unicode code points:

1.  Refuse the prompt if it holds a code point of general category Cc other than U+0009, U+000A and
    U+000D, or one of category Cs, or more than `MAX_PROMPT` code points.
2.  Normalise to NFKD. Remove every code point of category Mn (marks) or Cf (formats, such as
    the zero-width joiner).
3.  If the vocabulary says `lowercase`, replace every code point by its own lower case, one at a
    time. (No rule that looks at neighbours, so a final sigma stays U+03C3; no locale. After step 2
    no code point is left whose lower case is longer than one code point.)
4.  Split at white space: U+0009, U+000A, U+000D, U+0020, U+1680, U+2028 and U+2029. (NFKD has
    turned the other spaces into U+0020.) White space is dropped.
5.  Split every punctuation mark off as a word of its own: U+0021-002F, U+003A-0040, U+005B-0060,
    U+007B-007E, and the categories Pc, Pd, Pe, Pf, Pi, Po, Ps.
6.  A word becomes pieces by greedy longest match from the left: the longest prefix that is in the
    vocabulary; then, until the word is used up, the longest prefix of the rest that is in the
    vocabulary with the `continuation` mark before it. If some rest has no match, or the word is
    longer than `MAX_WORD` code points, the whole word is the one `unk` token.
7.  No token is added at the ends. The result is padded at its end with `pad` to `max_length`;
    more tokens than that are an error, never cut off in silence.

A token's number is its place in the `tokens` list of the vocabulary file, counted from 0.

Reference:
    Devlin et al. 2018, "BERT", arXiv:1810.04805 (WordPiece as in its published tokenizer, which
    differs in step 3 by Python's context-dependent lower case and in step 5 by CJK characters).
"""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from mvsdk._arguments import check_text
from mvsdk._parse import describe, has_more_values, quote
from mvsdk.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAX_PROMPT = 4096
"""Code points allowed in a prompt: far above any text length, far below what would cost time."""
MAX_WORD = 100
"""Code points of the longest word that is cut into pieces."""
MAX_VOCABULARY_BYTES = 8 << 20
"""Largest vocabulary file that is read."""
MAX_TOKENS = 2**20
"""Tokens of a vocabulary."""
MAX_VALUES = MAX_TOKENS + 16
"""Values of a vocabulary file: its tokens, and what it says beside them."""
MAX_TOKEN = 256
"""Code points of a token: more than a word and the mark before it have."""
MAX_MARK = 64
"""Code points of `continuation`, `pad` and `unk`."""

_SPACES = frozenset("\t\n\r \u1680\u2028\u2029")
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class Tokenizer(Protocol):
    """What a pipeline needs of a tokenizer."""

    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the token numbers of a prompt. Int32, (1, L)."""
        ...

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a prompt that the vocabulary cannot spell."""
        ...

    def knows_a_word(self, text: str) -> bool:
        """Return whether the vocabulary can spell any word of a prompt."""
        ...


class WordPiece:
    """WordPiece with the rules of this module."""

    def __init__(
        self,
        tokens: Sequence[str],
        max_length: int,
        *,
        lowercase: bool = True,
        continuation: str = "##",
        pad: str = "[PAD]",
        unk: str = "[UNK]",
    ) -> None:
        """Build from a vocabulary in memory.

        Args:
            tokens: Pieces; the place of a piece is its number. No empty piece, none twice, at most
                `MAX_TOKENS`, each of at most `MAX_TOKEN` code points.
            max_length: Length of every encoded prompt, at least 1.
            lowercase: Whether step 3 of the rules applies.
            continuation: Mark before pieces that do not start a word, at most `MAX_MARK` code
                points.
            pad: Piece that fills the end; must be in `tokens`, likewise.
            unk: Piece for words that cannot be spelled; must be in `tokens`, likewise.

        Raises:
            BundleError: If the vocabulary breaks one of these.
        """
        self._ids = {token: index for index, token in enumerate(tokens)}
        if len(tokens) > MAX_TOKENS:
            raise BundleError(
                f"vocabulary has {len(tokens)} tokens, at most {MAX_TOKENS} are allowed; "
                "export again with fewer"
            )
        if "" in self._ids or len(self._ids) != len(tokens):
            raise BundleError("vocabulary holds an empty or a repeated token; export again")
        _check_length("token", max(tokens, key=len, default=""), MAX_TOKEN)
        for role, token in (("continuation", continuation), ("pad", pad), ("unk", unk)):
            _check_length(role, token, MAX_MARK)
        for role, token in (("pad", pad), ("unk", unk)):
            if token not in self._ids:
                raise BundleError(f"vocabulary lacks its {role} token {quote(token)}; export again")
        if max_length < 1:
            raise BundleError(f"tokenizer max_length is {max_length}; allowed: 1 and above")
        self.max_length = max_length
        self.pad = pad
        self.unk = unk
        self._lowercase = lowercase
        self._continuation = continuation
        self._pad_id = self._ids[pad]
        self._unk_id = self._ids[unk]
        self._longest = max(len(token) for token in tokens)

    @classmethod
    def from_file(cls, path: Path, max_length: int) -> WordPiece:
        """Read the vocabulary file of a bundle.

        Args:
            path: JSON file: `{"kind": "wordpiece", "tokens": [...], "lowercase": true,
                "continuation": "##", "pad": "[PAD]", "unk": "[UNK]"}`; only the first two keys are
                required.
            max_length: Length of every encoded prompt.

        Raises:
            BundleError: If the file is missing, too big or not such a vocabulary.
        """
        fields = _read_vocabulary(path)
        return cls(
            fields["tokens"],
            max_length,
            lowercase=fields.get("lowercase", True),
            continuation=fields.get("continuation", "##"),
            pad=fields.get("pad", "[PAD]"),
            unk=fields.get("unk", "[UNK]"),
        )

    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the token numbers of a prompt.

        Args:
            text: The prompt.

        Returns:
            Token numbers, padded at the end. Int32, (1, max_length).

        Raises:
            InputError: If the prompt is empty, holds control characters, or is too long.
        """
        pieces = [piece for word in self._words(text) for piece in self.pieces(word)]
        if not pieces:
            raise InputError("prompt is empty; describe the clip in a few words")
        if len(pieces) > self.max_length:
            raise InputError(
                f"prompt has {len(pieces)} tokens, this model takes at most {self.max_length}; "
                "shorten the prompt"
            )
        ids = np.full((1, self.max_length), self._pad_id, np.int32)
        ids[0, : len(pieces)] = pieces
        return ids

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
        for char in unicodedata.normalize("NFKD", text):
            if unicodedata.category(char) not in {"Mn", "Cf"}:
                yield char.lower() if self._lowercase else char

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


def check_prompt(text: str) -> None:
    """Check a prompt before anything is done with it.

    Raises:
        InputError: If it is no text, blank, longer than `MAX_PROMPT`, or holds control characters.
    """
    check_text("prompt", text)
    if not text.strip():
        raise InputError("prompt is empty; describe the clip in a few words")
    if len(text) > MAX_PROMPT:
        raise InputError(
            f"prompt has {len(text)} characters, at most {MAX_PROMPT} are allowed; shorten it"
        )
    for place, char in enumerate(text):
        category = unicodedata.category(char)
        if category == "Cs" or (category == "Cc" and char not in "\t\n\r"):
            raise InputError(
                f"prompt holds the control character U+{ord(char):04X} at position {place}; "
                "allowed: printable text; remove it"
            )


def _is_punctuation(char: str) -> bool:
    return char in _ASCII_PUNCTUATION or unicodedata.category(char).startswith("P")


def _check_length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise BundleError(
            f"vocabulary has the {what} {quote(text)}, at most {most} letters are allowed; "
            "export again with a shorter one"
        )


def _read_vocabulary(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_VOCABULARY_BYTES:
            raise BundleError(f"vocabulary {path.name} is larger than {MAX_VOCABULARY_BYTES} bytes")
        payload = path.read_bytes()
        if has_more_values(payload, MAX_VALUES):
            raise BundleError(
                f"vocabulary {path.name} holds more than {MAX_TOKENS} tokens, the most that is "
                "read; export again with fewer"
            )
        document: object = json.loads(payload.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise BundleError(f"vocabulary {path.name} cannot be read as JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise BundleError(f"vocabulary {path.name} is not a JSON object; export again")
    fields = cast("dict[str, Any]", document)
    if fields.get("kind") != "wordpiece":
        raise BundleError(
            f"vocabulary {path.name} has kind {describe(fields.get('kind'))}; known: wordpiece"
        )
    types = {"tokens": list, "lowercase": bool, "continuation": str, "pad": str, "unk": str}
    for key, kind in types.items():
        if not isinstance(fields.get(key, kind()), kind):
            raise BundleError(f"vocabulary {path.name}: {key} is not a {kind.__name__}")
    tokens = cast("list[object]", fields.get("tokens", []))
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise BundleError(f"vocabulary {path.name}: tokens is not a list of strings")
    return fields
